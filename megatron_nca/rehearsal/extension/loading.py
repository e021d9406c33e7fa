"""How the emulation takes the place of Transformer Engine's compiled extension.

Transformer Engine loads a shared object when `transformer_engine.pytorch` is imported. An import hook lets its Python load,
then replaces what only a GPU's machine could answer:

| where | what |
|---|---|
| `transformer_engine.common` | loading the shared object gives the emulation |
| `transformer_engine.pytorch.utils` | a bare index of a device |
| `transformer_engine.pytorch.quantization` | whether there is block scaling, which asks PyTorch for its CUDA |
| quantized tensors | pickling; a GPU's reach a checkpoint through `Tensor.cpu`, which makes them plain |

With the emulation in place the stand-in presents a Hopper, whose tensors say that they are CUDA's (`Tensor.is_cuda`).
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch

from megatron_nca.rehearsal import extension
from megatron_nca.rehearsal.extension import machine
from megatron_nca.rehearsal.stand_in import devices, queries
from megatron_nca.rehearsal.stand_in.replacing import replace

PACKAGE = "transformer_engine"

_ENVIRONMENT = {
    # Neither the core library nor checks of an installation.
    "NVTE_PROJECT_BUILDING": "1",
    # Attention is PyTorch's: there is no flash attention, and the emulation offers no fused one.
    "NVTE_MASKED_SOFTMAX_FUSION": "0",
    "NVTE_TORCH_COMPILE": "0",
}


def available() -> bool:
    """Return whether Transformer Engine's Python is installed."""
    spec = importlib.util.find_spec(PACKAGE)
    return spec is not None and spec.origin is not None


def install() -> None:
    """Put the emulation in place, if there is a Transformer Engine to use it; part of `stand_in.install`."""
    if not available():
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sys.meta_path.insert(0, _Finder())
    replace(torch.Tensor, _make_wrapper_subclass=staticmethod(_on_cpu(torch.Tensor._make_wrapper_subclass)))
    replace(torch.Tensor, is_cuda=property(lambda tensor: True))
    queries.set_capability(machine.capability())


def installed_version() -> tuple[int, int]:
    """Major and minor of the Transformer Engine that is installed."""
    major, minor = version(PACKAGE).split(".")[:2]
    return int(major), int(minor)


def _on_cpu(make: Callable[..., Any]) -> Callable[..., Any]:
    def make_on_cpu(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        return make(*args, device=devices.to_cpu(device), **kwargs)

    return make_on_cpu


def _load_emulation(framework: str) -> None:
    if framework != "torch":
        raise ImportError(f"{PACKAGE}'s extension for {framework} is not emulated; the one for torch is")
    sys.modules[extension.NAME] = extension.module(installed_version())


def _replace_loading(module: types.ModuleType) -> None:
    replace(module, load_framework_extension=_load_emulation)


def _replace_device_names(module: types.ModuleType) -> None:
    canonicalize = getattr(module, "canonicalize_device", None)
    if canonicalize is None:
        return

    # A PyTorch without CUDA has no device for a bare index.
    def canonicalize_device(device: Any) -> Any:
        return canonicalize(torch.device("cuda", device) if isinstance(device, int) else device)

    replace(module, canonicalize_device=canonicalize_device)


def _replace_support(module: types.ModuleType) -> None:
    def check_fp8_block_scaling_support() -> tuple[bool, str]:
        return True, ""

    if hasattr(module, "check_fp8_block_scaling_support"):
        replace(module, check_fp8_block_scaling_support=check_fp8_block_scaling_support)


def _replace_pickling(name: str) -> Callable[[types.ModuleType], None]:
    def replace_in(module: types.ModuleType) -> None:
        replace(getattr(module, name), __reduce_ex__=lambda self, protocol: self.dequantize().__reduce_ex__(protocol))

    return replace_in


_PYTORCH = f"{PACKAGE}.pytorch"
_REPLACEMENTS: dict[str, Callable[[types.ModuleType], None]] = {
    f"{PACKAGE}.common": _replace_loading,
    f"{_PYTORCH}.utils": _replace_device_names,
    f"{_PYTORCH}.quantization": _replace_support,
    f"{_PYTORCH}.tensor.float8_tensor": _replace_pickling("Float8Tensor"),
    f"{_PYTORCH}.tensor.float8_blockwise_tensor": _replace_pickling("Float8BlockwiseQTensor"),
    f"{_PYTORCH}.tensor.mxfp8_tensor": _replace_pickling("MXFP8Tensor"),
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules in which something is replaced."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _REPLACEMENTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module as ever, then makes the replacements in it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        module: types.ModuleType | None = self._inner.create_module(spec)
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        self._inner.exec_module(module)
        _REPLACEMENTS[module.__name__](module)

    def __getattr__(self, name: str) -> Any:
        # Such as `get_source`, which torch.library asks for.
        return getattr(self._inner, name)
