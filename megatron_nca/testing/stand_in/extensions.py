"""Compiled parts that need a GPU's compiler: left out, so that eager PyTorch does their work."""

import os
import sys
import types
from typing import Any

_FUSED_KERNELS = "megatron.legacy.fused_kernels"


def install() -> None:
    """Switch `torch.compile` off and stub Megatron-LM's fused kernels."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    # The variable is read when the compiler is first imported, which may have happened.
    if compiler := sys.modules.get("torch._dynamo"):
        compiler.config.disable = True
    sys.modules.setdefault(_FUSED_KERNELS, _fused_kernels())


def _fused_kernels() -> types.ModuleType:
    """A stub of the module whose `load` compiles CUDA sources."""
    module = types.ModuleType(_FUSED_KERNELS)

    def load(args: Any) -> None:
        return None

    module.load = load  # type: ignore[attr-defined]
    return module
