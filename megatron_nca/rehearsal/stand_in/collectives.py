"""Process groups: NCCL is asked for, gloo is given.

Collectives that are asked for together go to gloo type by type: given tensors of several types it takes all for the first
one's, and silently mixes them up.
"""

import atexit
import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed
from torch.distributed.device_mesh import DeviceMesh

from megatron_nca.rehearsal.stand_in.devices import to_cpu
from megatron_nca.rehearsal.stand_in.replacing import replace

_NCCL_ONLY = ("pg_options", "device_id")


def install() -> None:
    """Replace the making of process groups."""
    c10d = torch.distributed.distributed_c10d
    for name in ("init_process_group", "new_group"):
        replace(c10d, torch.distributed, **{name: _with_gloo(getattr(c10d, name))})
    replace(c10d, torch.distributed, _coalescing_manager=_type_by_type(c10d._coalescing_manager))
    replace(c10d, torch.distributed, all_to_all_single=_with_listed_splits(c10d.all_to_all_single))
    replace(c10d, torch.distributed, _make_nccl_premul_sum=Scaled)
    for name in ("all_reduce", "reduce_scatter_tensor"):
        replace(c10d, torch.distributed, **{name: _scaling_first(getattr(c10d, name))})
    replace(c10d, torch.distributed, all_gather=_of_any_sizes(c10d.all_gather))
    replace(c10d, torch.distributed, isend=_of_a_copy(c10d.isend))
    replace(DeviceMesh, __init__=_of_cpus(DeviceMesh.__init__))
    if not hasattr(torch.distributed, "ProcessGroupNCCL"):
        replace(torch.distributed, ProcessGroupNCCL=types.SimpleNamespace(Options=Options))
    atexit.register(_leave_groups)


class Options:
    """NCCL's options, where PyTorch was built without NCCL; gloo is told none of them.

    Args:
        is_high_priority_stream: What Megatron asks of a group.
    """

    def __init__(self, is_high_priority_stream: bool = False) -> None:
        self.is_high_priority_stream = is_high_priority_stream
        self.config = types.SimpleNamespace()


class Scaled:
    """A sum whose terms are multiplied by a factor on their way, which NCCL has and gloo has not.

    Args:
        factor: The factor.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor


def _scaling_first(collective: Callable[..., Any]) -> Callable[..., Any]:
    summed = torch.distributed.ReduceOp.SUM

    @functools.wraps(collective)
    def reduce(output: Any, *args: Any, **kwargs: Any) -> Any:
        op = kwargs.get("op")
        if not isinstance(op, Scaled):
            return collective(output, *args, **kwargs)
        # What is reduced is the only tensor, or the second one; its terms are of no use afterwards.
        terms = args[0] if args and isinstance(args[0], torch.Tensor) else kwargs.get("input", output)
        terms.mul_(op.factor)
        return collective(output, *args, **{**kwargs, "op": summed})

    return reduce


def _of_any_sizes(all_gather: Callable[..., Any]) -> Callable[..., Any]:
    """NCCL gathers tensors of several sizes, gloo tensors of one."""

    @functools.wraps(all_gather)
    def gather(tensor_list: list[Any], tensor: Any, group: Any = None, async_op: bool = False) -> Any:
        if len({part.shape for part in tensor_list}) == 1:
            return all_gather(tensor_list, tensor, group=group, async_op=async_op)
        rank = torch.distributed.get_rank(group)
        for place, part in enumerate(tensor_list):
            if place == rank:
                part.copy_(tensor)
            torch.distributed.broadcast(part, group=group, group_src=place)
        return None

    return gather


def _of_a_copy(isend: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what is on its way: a GPU's memory is given away no sooner than its stream gets there, gloo's at once."""

    @functools.wraps(isend)
    def send(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return isend(tensor.detach().clone(memory_format=torch.contiguous_format), *args, **kwargs)

    return send


def _of_cpus(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def constructed(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        make(self, to_cpu(device_type), *args, **kwargs)

    return constructed


def _with_listed_splits(all_to_all_single: Callable[..., Any]) -> Callable[..., Any]:
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


def _with_gloo(make_group: Callable[..., Any]) -> Callable[..., Any]:
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


def _type_by_type(coalesce: Callable[..., Any]) -> Callable[..., Any]:
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
