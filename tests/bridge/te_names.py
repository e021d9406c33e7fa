"""Names of Transformer Engine for Bridge's peft module to subclass where there is none, and nothing behind them."""

import importlib.machinery
import importlib.util
import sys
import types


def provide():
    if importlib.util.find_spec("transformer_engine"):
        return
    # Megatron-Core looks for Transformer Engine when it is imported, and must not find this one.
    import torch

    importlib.import_module("megatron.core.models.gpt.gpt_layer_specs")
    for name in ("transformer_engine", "transformer_engine.pytorch", "transformer_engine.pytorch.ops"):
        module = types.ModuleType(name)
        module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
        for layer in ("Linear", "LayerNormLinear", "GroupedLinear", "Sequential", "FusibleOperation"):
            setattr(module, layer, torch.nn.Module)
        sys.modules[name] = module
    sys.modules["transformer_engine"].pytorch = sys.modules["transformer_engine.pytorch"]
    sys.modules["transformer_engine.pytorch"].ops = sys.modules["transformer_engine.pytorch.ops"]
