"""Device arguments: wherever PyTorch is told a CUDA device, it is told the CPU."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _device

from megatron_nca.rehearsal.stand_in.replacing import replace

_FACTORIES = (
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "empty_like",
    "empty_strided",
    "eye",
    "full",
    "full_like",
    "linspace",
    "logspace",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "scalar_tensor",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
    "zeros_like",
)
_METHODS = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")
_TENSOR_TYPES = ("Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long", "Bool")


def to_cpu(device: Any) -> Any:
    """Return the CPU in place of a CUDA device; any other value as it is.

    Args:
        device: What a caller gave as a device: a name, an index (an index is a CUDA device's), a `torch.device` or None.
    """
    if isinstance(device, bool) or not isinstance(device, (int, str, torch.device)):
        return device
    return "cpu" if isinstance(device, int) or torch.device(device).type == "cuda" else device


def install() -> None:
    """Replace factory functions, transfers and type names."""
    # `with torch.device("meta")` recognises the factories by identity, from a table it makes once: before they are wrapped.
    _device._device_constructors()
    for name in _FACTORIES:
        replace(torch, **{name: _with_device_on_cpu(getattr(torch, name))})
    for name in _METHODS:
        replace(torch.Tensor, **{name: _with_device_on_cpu(getattr(torch.Tensor, name))})
    for name in _TENSOR_TYPES:
        replace(torch.cuda, **{f"{name}Tensor": getattr(torch, f"{name}Tensor")})
    for owner, name in ((torch.Tensor, "to"), (torch.nn.Module, "to"), (torch.nn.Module, "to_empty")):
        replace(owner, **{name: _with_target_on_cpu(getattr(owner, name))})
    replace(torch.Tensor, cuda=_same_tensor, pin_memory=_same_tensor, record_stream=_same_tensor)
    replace(torch.Tensor, type=_with_cuda_type_names(torch.Tensor.type))
    replace(torch, load=_with_locations_on_cpu(torch.load))


def _same_tensor(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return tensor


def _with_device_on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        if "device" in kwargs:
            kwargs["device"] = to_cpu(kwargs["device"])
        # Pinned memory is a GPU driver's to give.
        kwargs.pop("pin_memory", None)
        made: torch.Tensor = factory(*args, **kwargs)
        return made

    return make


def _with_target_on_cpu(transfer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(transfer)
    def to(self: Any, *args: Any, **kwargs: Any) -> Any:
        if args:
            args = (to_cpu(args[0]), *args[1:])
        if "device" in kwargs:
            kwargs["device"] = to_cpu(kwargs["device"])
        return transfer(self, *args, **kwargs)

    return to


def _with_cuda_type_names(type_: Callable[..., Any]) -> Callable[..., Any]:
    """Megatron's optimizers sort parameters by names such as `torch.cuda.FloatTensor`."""

    @functools.wraps(type_)
    def named(self: torch.Tensor, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if dtype is None:
            name = type_(self)
            return name if name.startswith("torch.cuda.") else name.replace("torch.", "torch.cuda.", 1)
        if isinstance(dtype, str):
            dtype = dtype.replace("torch.cuda.", "torch.", 1)
        return type_(self, dtype, *args, **kwargs)

    return named


def _with_locations_on_cpu(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_on_cpu(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        return load(f, to_cpu(map_location), *args, **kwargs)

    return load_on_cpu
