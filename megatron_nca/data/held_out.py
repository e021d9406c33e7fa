"""What is asked of validation and test, which hold the final blend only."""

from __future__ import annotations

from megatron_nca.data.data_path import Curriculum
from megatron_nca.errors import EntryError


def refuse_endless(final: Curriculum, split: str, size_word: str) -> None:
    """Refuse to validate on the whole of a split that has no end.

    Args:
        final: What the split holds.
        split: Its name.
        size_word: The stack's word for what gives it a size.

    Raises:
        EntryError: It has an ``nca:`` entry.
    """
    if final.entries:
        raise EntryError(
            final.entries[0].text, f"has no end, so the {split} split needs a size; give {size_word}, no full validation"
        )
