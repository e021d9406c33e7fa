"""Compiled parts that need a GPU's compiler: left out, so that eager PyTorch does their work."""

import os
import sys
import types
from typing import Any

import torch._dynamo

_FUSED_KERNELS = "megatron.legacy.fused_kernels"


def install() -> None:
    """Switch `torch.compile` off and stub Megatron-LM's fused kernels."""
    # The variable reaches data loader workers and child processes, the setting this process.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    torch._dynamo.config.disable = True
    sys.modules.setdefault(_FUSED_KERNELS, _fused_kernels())


def _fused_kernels() -> types.ModuleType:
    """A stub of the module whose `load` compiles CUDA sources."""
    module = types.ModuleType(_FUSED_KERNELS)

    def load(args: Any) -> None:
        return None

    module.load = load  # type: ignore[attr-defined]
    return module
