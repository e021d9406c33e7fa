"""Process groups: NCCL is asked for, gloo is given.

Collectives that are asked for together go to gloo type by type: given tensors of several types it takes all for the first
one's, and silently mixes them up.
"""

import atexit
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed

from megatron_nca.testing.stand_in.replacing import replace

_NCCL_ONLY = ("pg_options", "device_id")


def install() -> None:
    """Replace the making of process groups."""
    c10d = torch.distributed.distributed_c10d
    for name in ("init_process_group", "new_group"):
        replace(c10d, torch.distributed, **{name: _with_gloo(getattr(c10d, name))})
    replace(c10d, torch.distributed, _coalescing_manager=_type_by_type(c10d._coalescing_manager))
    replace(c10d, torch.distributed, all_to_all_single=_with_listed_splits(c10d.all_to_all_single))
    atexit.register(_leave_groups)


def _with_listed_splits(all_to_all_single: Callable) -> Callable:
    """Megatron's experts bring the sizes to the host as lists only where the tensor says that it is a device's."""

    @functools.wraps(all_to_all_single)
    def exchange(
        output: Any, input: Any, output_split_sizes: Any = None, input_split_sizes: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        sizes = (split.tolist() if hasattr(split, "tolist") else split for split in (output_split_sizes, input_split_sizes))
        return all_to_all_single(output, input, *sizes, *args, **kwargs)

    return exchange


def _leave_groups() -> None:
    """Stop gloo's threads: one that asks for the interpreter while it shuts down aborts a process that has succeeded."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _with_gloo(make_group: Callable) -> Callable:
    @functools.wraps(make_group)
    def make(*args: Any, **kwargs: Any) -> Any:
        if make_group.__name__ == "init_process_group" and args:
            kwargs["backend"], args = args[0], args[1:]
        if "nccl" in (kwargs.get("backend") or "nccl"):
            kwargs["backend"] = "gloo"
        for option in _NCCL_ONLY:
            kwargs.pop(option, None)
        return make_group(*args, **kwargs)

    return make


def _type_by_type(coalesce: Callable) -> Callable:
    c10d = torch.distributed.distributed_c10d

    @contextlib.contextmanager
    @functools.wraps(coalesce)
    def coalescing(group: Any = None, device: Any = None, async_ops: bool = False) -> Iterator[Any]:
        group = group or c10d._get_default_group()
        recorded = c10d._world.pg_coalesce_state.setdefault(group, [])
        manager = c10d._CoalescingManager()
        try:
            yield manager
        finally:
            c10d._world.pg_coalesce_state.pop(group, None)
        for dtype in dict.fromkeys(operation.tensor.dtype for operation in recorded):
            with coalesce(group, async_ops=async_ops) as works:
                c10d._world.pg_coalesce_state[group] += [op for op in recorded if op.tensor.dtype == dtype]
            manager.append(works if async_ops else None)

    return coalescing
