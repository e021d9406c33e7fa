"""How the stand-in replaces what PyTorch has."""

from typing import Any


def replace(*owners: Any, **replacements: Any) -> None:
    """Give modules or classes other attributes.

    Args:
        *owners (Any): The modules or classes; all get the same
        **replacements (Any): The attributes by their names
    """
    for owner in owners:
        for name, replacement in replacements.items():
            setattr(owner, name, replacement)
