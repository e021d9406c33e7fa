"""Ranks that agree before they go on, so that an error on one of them is an error on all, and nobody waits for a time-out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from megatron_nca.errors import CurriculumError, NCAError

T = TypeVar("T")


def raise_together(work: Callable[[], T]) -> T:
    """Do something on every rank; a collective call.

    Args:
        work: What is done; it must not be collective itself.

    Returns:
        What it returns here.

    Raises:
        NCAError: It has failed here, or on another rank, whose error this one then repeats.
    """
    error: NCAError | None = None
    try:
        result = work()
    except NCAError as raised:
        error = raised
    others = _gather(None if error is None else str(error))
    if error is not None:
        raise error
    first = next((rank for rank, found in enumerate(others) if found is not None), None)
    if first is not None:
        raise CurriculumError(f"rank {first} reports: {others[first]}")
    return result


def from_rank_0(work: Callable[[], T]) -> T:
    """Do something on rank 0 alone and give every rank its result; a collective call.

    Args:
        work: What is done; it must not raise.
    """
    import torch

    if not _has_ranks():
        return work()
    box: list[Any] = [work() if torch.distributed.get_rank() == 0 else None]
    torch.distributed.broadcast_object_list(box, src=0)
    result: T = box[0]
    return result


def _gather(value: str | None) -> list[str | None]:
    if not _has_ranks():
        return [value]
    import torch

    gathered: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def _has_ranks() -> bool:
    import torch

    return bool(torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1)
