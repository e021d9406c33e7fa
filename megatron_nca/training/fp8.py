"""FP8 at the switch: no amax history of NCA activations scales text, and no scale is lost.

Transformer Engine's delayed scaling keeps a history of largest magnitudes for every tensor that it casts, and the scale made of
it. At the switch histories become empty and **scales stay**: they serve the first step of text, whose own magnitudes then make
the next ones. Scales of one instead would flush most gradients of that step to zero, as gradients are far below FP8's range.
Current and block scaling keep no history; what attention keeps beside them is cleared alike.

Histories are where modules keep them (``fp8_meta``), where the operations of ``te.ops`` do (``_fp8_metas``), and in the lists
that the reduction over ranks walks. The lists are complete once a step has run, and empty after a resume.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from megatron_nca.interfaces.core import Model, ModelChunk

DIRECTIONS = ("scaling_fwd", "scaling_bwd")
MANAGERS = ("transformer_engine.pytorch.quantization", "transformer_engine.pytorch.fp8")
"""Modules of Transformer Engine that hold its ``FP8GlobalStateManager``, in newer and in older versions."""


@dataclass(frozen=True)
class ClearedHistories:
    """What was cleared.

    Attributes:
        histories: How many had seen something.
        elsewhere: How many of them are in Transformer Engine's lists, but in no module of the model.
    """

    histories: int = 0
    elsewhere: int = 0

    def __str__(self) -> str:
        if not self.histories:
            return "no FP8 history to clear"
        text = f"{self.histories} FP8 histories cleared, scales kept"
        if self.elsewhere:
            text += f" (warning: {self.elsewhere} of them belong to no module that was found; is all of the model here?)"
        return text


def clear_histories(model: Model) -> ClearedHistories:
    """Empty every amax history in place, so that captured graphs and reduction buffers stay valid, and keep every scale.

    Args:
        model: Megatron's model chunks.

    Returns:
        How many histories had seen something, and how many of those only Transformer Engine's lists led to.
    """
    by_module = {history.data_ptr(): history for history in _histories_of(model)}
    listed = {history.data_ptr(): history for history in _listed_histories()}
    seen = {place: bool(history.any()) for place, history in {**listed, **by_module}.items()}
    with torch.no_grad():
        for history in (*by_module.values(), *listed.values()):
            history.zero_()
    return ClearedHistories(sum(seen.values()), sum(seen[place] for place in listed.keys() - by_module.keys()))


def _histories_of(model: Model) -> Iterator[torch.Tensor]:
    for chunk in model:
        for module in all_modules(chunk):
            metas = [getattr(module, "fp8_meta", None), *(getattr(module, "_fp8_metas", None) or {}).values()]
            for meta in metas:
                if isinstance(meta, dict):
                    yield from _histories_in(meta)


def _histories_in(meta: dict[str, Any]) -> Iterator[torch.Tensor]:
    for direction in DIRECTIONS:
        history = getattr(meta.get(direction), "amax_history", None)
        if history is not None:
            yield history


def _listed_histories() -> Iterator[torch.Tensor]:
    for name in MANAGERS:
        manager = getattr(sys.modules.get(name), "FP8GlobalStateManager", None)
        if manager is not None:
            held = getattr(manager, "quantization_state", manager)
            for histories in held.global_amax_history_buffer.values():
                yield from histories
            return


def all_modules(root: ModelChunk) -> Iterator[ModelChunk]:
    """Yield a module and every module under it, those too that are kept out of torch's sight.

    Megatron-Core keeps the fused form of an MLP in a tuple, so that its parameters are not counted twice.
    """
    found = {id(root)}
    waiting: list[ModelChunk] = [root]
    while waiting:
        module = waiting.pop()
        yield module
        for child in (*module.children(), *_hidden(module)):
            if id(child) not in found:
                found.add(id(child))
                waiting.append(child)


def _hidden(module: ModelChunk) -> Iterator[torch.nn.Module]:
    for value in vars(module).values():
        if isinstance(value, (tuple, list)):
            yield from (item for item in value if isinstance(item, torch.nn.Module))
