"""Gathers of parameters that are under way between two steps.

Under ``--overlap-param-gather-with-optimizer-step`` a step ends with the first model chunk's parameters on their way from the
ranks that updated them. A weight written before they arrive would be overwritten by them, in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from megatron_nca.interfaces.core import Model

GROUPS = ("bucket_groups", "expert_parallel_bucket_groups")


def finish(model: Model) -> int:
    """Wait for every gather that has been dispatched.

    Args:
        model: Megatron's model chunks of this rank.

    Returns:
        How many there were.
    """
    waiting = [group for group in _bucket_groups(model) if getattr(group, "param_gather_handle", None) is not None]
    for group in waiting:
        group.finish_param_sync(skip_next_bucket_dispatch=True)
    return len(waiting)


def _bucket_groups(model: Model) -> Iterator[Any]:
    for chunk in model:
        for name in GROUPS:
            yield from getattr(chunk, name, ())
