"""What is asked of a GPU and needs no GPU to answer: is there one, which, how large, how full; and its profiler."""

import collections
import os
from typing import Any, NamedTuple

import torch

from megatron_nca.rehearsal.stand_in.replacing import replace

COMPUTE_CAPABILITY = (8, 0)


class DeviceProperties(NamedTuple):
    """The stand-in's answer to `torch.cuda.get_device_properties`."""

    name: str = "CPU standing in for CUDA"
    major: int = COMPUTE_CAPABILITY[0]
    minor: int = COMPUTE_CAPABILITY[1]
    total_memory: int = 80 * 2**30
    multi_processor_count: int = 1
    warp_size: int = 32


class CudaRuntime:
    """The part of `torch.cuda.cudart()` that starts and stops a profiler: there is none to start."""

    def cudaProfilerStart(self) -> int:  # noqa: N802 (CUDA's name)
        """Report success."""
        return 0

    def cudaProfilerStop(self) -> int:  # noqa: N802 (CUDA's name)
        """Report success."""
        return 0


def device_count() -> int:
    """One device for each process of this machine, as a launcher with one GPU a rank would find."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def current_device() -> int:
    """Return the index that the process's launcher gave it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def install() -> None:
    """Replace `torch.cuda`'s queries."""
    # torch.cuda's own lazy calls, which Megatron imports by name, then run at once instead of waiting for a driver.
    replace(torch.cuda, _initialized=True)
    replace(torch.cuda, **{name: _constant(answer) for name, answer in _ANSWERS.items()})
    replace(torch.cuda, torch.cuda.memory, **{name: _constant(0) for name in _MEMORY_SIZES}, memory_stats=_memory_stats)
    for owner, name in _ORDERS:
        replace(owner, **{name: _constant(None)})
    replace(torch.cuda, device_count=device_count, current_device=current_device)
    if hasattr(torch, "accelerator"):
        # A PyTorch built for CUDA would see the stand-in here, and pin data loaders' memory through a driver that is not there.
        replace(torch.accelerator, is_available=_constant(False), current_device_index=current_device)


def set_capability(capability: tuple[int, int]) -> None:
    """Present a GPU of another compute capability."""
    properties = DeviceProperties(major=capability[0], minor=capability[1])
    replace(torch.cuda, get_device_capability=_constant(capability), get_device_properties=_constant(properties))


def _constant(answer: Any) -> Any:
    def answers(*args: Any, **kwargs: Any) -> Any:
        return answer

    return answers


def _memory_stats(device: Any = None) -> dict[str, int]:
    return collections.defaultdict(int)


_ANSWERS = {
    "is_available": True,
    "is_bf16_supported": True,
    "is_current_stream_capturing": False,
    "is_initialized": True,
    "get_device_capability": COMPUTE_CAPABILITY,
    "get_device_name": DeviceProperties().name,
    "get_device_properties": DeviceProperties(),
    "mem_get_info": (DeviceProperties().total_memory, DeviceProperties().total_memory),
    "memory_summary": "",
    "cudart": CudaRuntime(),
    "utilization": 0,
    "temperature": 0,
    "power_draw": 0,
    "clock_rate": 0,
}
_MEMORY_SIZES = (
    "memory_allocated",
    "memory_reserved",
    "max_memory_allocated",
    "max_memory_reserved",
    "device_memory_used",
)
_ORDERS = (
    (torch.cuda, "init"),
    (torch.cuda, "set_device"),
    (torch.cuda, "empty_cache"),
    (torch.cuda, "ipc_collect"),
    (torch.cuda, "check_error"),
    (torch.cuda, "reset_peak_memory_stats"),
    (torch.cuda, "reset_max_memory_allocated"),
    (torch.cuda, "set_per_process_memory_fraction"),
    (torch.cuda, "_sleep"),
    (torch.cuda.memory, "_record_memory_history"),
    (torch.cuda.memory, "_dump_snapshot"),
    (torch.cuda.memory, "_snapshot"),
    (torch.cuda.nvtx, "range_push"),
    (torch.cuda.nvtx, "range_pop"),
    (torch.cuda.nvtx, "mark"),
)
