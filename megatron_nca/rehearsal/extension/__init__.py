"""`transformer_engine_torch` on a CPU: Transformer Engine's own Python over PyTorch in place of its compiled extension.

One file for each kind of kernel:

| file | what it computes |
|---|---|
| `formats` | FP8 numbers: casts, largest magnitudes, scales made of them |
| `tensorwise`, `blockwise`, `microscaling` | tensors with one scale, with one a block of 128, with one a group of 32 |
| `quantizing` | casts of any of these kinds, by quantizer |
| `recipes` | delayed scaling's histories and scales; casts of shards of master weights |
| `gemm` | products, of operands in the layouts that a GPU's kernels read |
| `norms`, `activations`, `rows` | LayerNorm and RMSNorm; GELU and its kin; rows padded for grouped products |
| `multi_tensor` | Adam, SGD, norms and scales over lists of tensors |
| `names` | enums, classes and answers about the machine; what differs between versions |
| `loading` | how the emulation takes the compiled extension's place |

WriteResult after csrc/extensions and common of Transformer Engine 2.11, with what 2.17 and 2.20 changed. A name that is not
emulated fails when it is called, by that name. What a CPU cannot show: speed, the rounding of real kernels' sums, fused
attention, NVFP4, user buffers.
"""

import types
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

NAME = "transformer_engine_torch"

CALLS: Counter[str] = Counter()
"""How often each function was called in this process."""


class Extension(types.ModuleType):
    """The module that stands in `sys.modules`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _missing(name)


def module(version: tuple[int, int]) -> Extension:
    """Make the module.

    Args:
        version: Version of the Transformer Engine that will import it.
    """
    from megatron_nca.rehearsal.extension import activations, gemm, multi_tensor, names, norms, quantizing, recipes, rows

    made = Extension(NAME)
    made.__file__ = __file__
    for name, value in names.of_version(version).items():
        setattr(made, name, value)
    for part in (activations, gemm, multi_tensor, norms, quantizing, recipes, rows):
        for name, function in part.FUNCTIONS.items():
            setattr(made, name, _counted(name, function))
    return made


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        CALLS[name] += 1
        return function(*args, **kwargs)

    return counted


def _missing(name: str) -> Callable[..., Any]:
    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{NAME}.{name} is not emulated on the CPU; choose flags that leave it out")

    return missing
