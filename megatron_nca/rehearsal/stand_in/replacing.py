"""How the stand-in replaces what PyTorch has."""

from typing import Any


def replace(*owners: Any, **replacements: Any) -> None:
    """Give modules or classes other attributes.

    Args:
        *owners: The modules or classes; all get the same.
        **replacements: The attributes by their names.
    """
    for owner in owners:
        for name, replacement in replacements.items():
            setattr(owner, name, replacement)
