"""Entries put before the data that a recipe already has: the same for NeMo's paths and Megatron-Bridge's blends."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_nca.data.entry import is_nca, parse_entry
from megatron_nca.data.phase_word import is_ours
from megatron_nca.errors import NCAError
from megatron_nca.stacks import Stack


def are_phases(paths: Sequence[str]) -> bool:
    """Tell whether a data path is phases alone, and so comes before what is there."""
    return all(is_nca(path) and parse_entry(path).is_phase for path in paths)


def check_paths(paths: Sequence[str], existing: Sequence[str], stack: Stack) -> None:
    """Refuse a data path without an entry, and a recipe that has one already.

    Args:
        paths: What the user gave.
        existing: The prefixes that the recipe has.
        stack: The stack whose words errors use.

    Raises:
        NCAError: There is nothing to add, or it has been added before.
    """
    if not any(is_ours(path) for path in paths):
        raise NCAError(f"with_nca: {list(paths)} has no nca: entry and no phase:; give one, as in {stack.word('text_first')}")
    if any(is_ours(prefix) for prefix in existing):
        raise NCAError(
            f"with_nca: the data have been overridden already, they are {list(existing)}; call it once, with every entry"
        )


def no_text(phases: Sequence[str], found: str, stack: Stack) -> NCAError:
    """Make the error of phases that nothing follows."""
    return NCAError(
        f"with_nca: {found}, so nothing follows {phases[-1]!r}; give the text too, as in {stack.word('text_first')}"
    )


def words_of(paths: object) -> list[str]:
    """Return the words of NeMo's ``paths``: of a path, a list of them or a dict with one for each split."""
    if isinstance(paths, dict):
        return [word for part in paths.values() for word in words_of(part)]
    return [str(path) for path in as_list(paths)]


def as_list(paths: object) -> list[object]:
    """Return the paths of one split as a list."""
    if paths is None:
        return []
    return list(paths) if isinstance(paths, (list, tuple)) else [paths]
