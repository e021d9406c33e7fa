"""What Bridge imports and a machine without a GPU has not, so that its modules can be imported; nothing is behind the names."""

import importlib
import importlib.machinery
import importlib.util
import sys
import types

RESILIENCY = "nvidia_resiliency_ext"


def provide():
    _import_core_without_old_resiliency()
    _name_transformer_engine()


def _import_core_without_old_resiliency():
    """Hide a resiliency extension that Megatron-Core 0.19 refuses for its age; Bridge's own imports do with it."""
    if RESILIENCY in sys.modules or not importlib.util.find_spec(RESILIENCY):
        return
    sys.modules[RESILIENCY] = None
    try:
        importlib.import_module("megatron.core.dist_checkpointing")
    finally:
        del sys.modules[RESILIENCY]


def _name_transformer_engine():
    if importlib.util.find_spec("transformer_engine"):
        return
    # Megatron-Core looks for Transformer Engine when it is imported, and must not find this one.
    import torch

    importlib.import_module("megatron.core.models.gpt.gpt_layer_specs")
    for name in ("transformer_engine", "transformer_engine.pytorch", "transformer_engine.pytorch.ops"):
        module = types.ModuleType(name)
        module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
        module.__version__ = "0"
        for layer in ("Linear", "LayerNormLinear", "GroupedLinear", "Sequential", "FusibleOperation"):
            setattr(module, layer, torch.nn.Module)
        sys.modules[name] = module
    sys.modules["transformer_engine"].pytorch = sys.modules["transformer_engine.pytorch"]
    sys.modules["transformer_engine.pytorch"].ops = sys.modules["transformer_engine.pytorch.ops"]
