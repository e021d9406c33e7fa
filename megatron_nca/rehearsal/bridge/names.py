"""What Bridge imports and a machine without a GPU has not, so that its modules can be imported; nothing is behind the names."""

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

ENGINE = "transformer_engine"
RESILIENCY = "nvidia_resiliency_ext"
LAYERS = ("Linear", "LayerNormLinear", "GroupedLinear", "Sequential", "FusibleOperation")


def provide() -> None:
    """Make Megatron-Bridge importable here, after `megatron_nca.rehearsal.install`."""
    import_core()
    _name_transformer_engine()
    _leave_compiled_helpers()


def has_engine() -> bool:
    """Return whether this interpreter has Transformer Engine's Python, and not its name alone."""
    loaded = sys.modules.get(ENGINE)
    return importlib.util.find_spec(ENGINE) is not None if loaded is None else hasattr(loaded, "__file__")


def import_core() -> None:
    """Import Megatron-Core, and hide a resiliency extension that 0.19 refuses for its age; Bridge's own imports do with it."""
    if RESILIENCY in sys.modules or not importlib.util.find_spec(RESILIENCY):
        return
    modules: dict[str, Any] = sys.modules
    modules[RESILIENCY] = None
    try:
        importlib.import_module("megatron.core.dist_checkpointing")
    finally:
        del sys.modules[RESILIENCY]


def _name_transformer_engine() -> None:
    if importlib.util.find_spec(ENGINE):
        return
    # Megatron-Core looks for Transformer Engine when it is imported, and must not find this one.
    import torch

    importlib.import_module("megatron.core.models.gpt.gpt_layer_specs")
    for name in (ENGINE, f"{ENGINE}.pytorch", f"{ENGINE}.pytorch.ops"):
        module: Any = types.ModuleType(name)
        module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
        module.__version__ = "0"
        for layer in LAYERS:
            setattr(module, layer, torch.nn.Module)
        sys.modules[name] = module
    engine: Any = sys.modules[ENGINE]
    engine.pytorch = sys.modules[f"{ENGINE}.pytorch"]
    engine.pytorch.ops = sys.modules[f"{ENGINE}.pytorch.ops"]


def _leave_compiled_helpers() -> None:
    """Let Bridge not compile Megatron-Core's dataset helpers where the package brings them compiled and no makefile."""
    utils: Any = importlib.import_module("megatron.core.datasets.utils")
    if not (Path(utils.__file__).parent / "Makefile").exists():
        utils.compile_helpers = lambda: None
