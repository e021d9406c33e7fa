"""What may be missing: compilers for GPUs, which a CPU does not need, and names that other versions of libraries have."""

import importlib.machinery
import os
import sys
import types
import typing
from typing import Any

import numpy
import torch._dynamo
import typing_extensions
from torch.utils._triton import has_triton_package

from megatron_nca.patching import after_import
from megatron_nca.rehearsal.stand_in.replacing import replace

_FUSED_KERNELS = "megatron.legacy.fused_kernels"
_TRITON_MODULES = ("triton", "triton.language", "triton.language.core", "triton.language.standard")
_MOE_UTILS = "megatron.core.transformer.moe.moe_utils"


def install() -> None:
    """Switch `torch.compile` off, stub Megatron-LM's fused kernels and Triton, and complete `typing` and `numpy`."""
    # The variable is for the processes that this one starts.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    torch._dynamo.config.disable = True
    sys.modules.setdefault(_FUSED_KERNELS, _fused_kernels())
    # PyTorch remembers its answer. Its own compiler, unlike Megatron's kernels, is not to believe in the stub.
    if not has_triton_package():
        sys.modules.update({name: Triton(name) for name in _TRITON_MODULES})
    # Megatron-LM 0.19 imports it from here; Python has it there since 3.12.
    if not hasattr(typing, "override"):
        replace(typing, override=typing_extensions.override)
    # Megatron-LM 0.14 saves the distributed optimizer with it; NumPy has it under the other name only since 2.0.
    if not hasattr(numpy, "product"):
        replace(numpy, product=numpy.prod)
    after_import(_MOE_UTILS, _name_missing_kernel)


class Triton(types.ModuleType):
    """A module of Triton: Megatron defines its kernels with it at import, whether or not it will launch them."""

    __version__ = "0.0.0"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Whoever asks whether Triton is installed looks for its spec.
        self.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)

    def __getattr__(self, name: str) -> "TritonName":
        if name.startswith("__"):
            raise AttributeError(name)
        return TritonName(f"{self.__name__}.{name}")


class TritonName:
    """Anything in Triton: a type, a constant, or a decorator that makes a kernel of a function."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> "TritonName":
        if name.startswith("__"):
            raise AttributeError(name)
        return TritonName(f"{self._name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> "TritonName":
        """Stand for what Triton would have made of the arguments."""
        return TritonName(f"{self._name}(...)")

    def __getitem__(self, grid: Any) -> Any:
        raise RuntimeError(
            f"{self._name} is a Triton kernel and needs a GPU. Choose flags that leave it out, as "
            "megatron_nca.rehearsal.megatron_lm does"
        )


def _fused_kernels() -> types.ModuleType:
    """Return a stub of the module whose `load` compiles CUDA sources."""
    module = types.ModuleType(_FUSED_KERNELS)

    replace(module, load=_load_nothing)
    return module


def _name_missing_kernel(moe_utils: types.ModuleType) -> None:
    """Megatron-Core 0.14 to 0.16 asks whether this kernel is there by a name that it has only with Transformer Engine."""
    if not hasattr(moe_utils, "te_general_gemm"):
        replace(moe_utils, te_general_gemm=None)


def _load_nothing(args: Any) -> None:
    """Compile nothing."""
