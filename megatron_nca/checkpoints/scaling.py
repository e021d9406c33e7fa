"""FP8 scaling state in a checkpoint: no amax history or scale of NCA activations scales text.

Transformer Engine keeps it under ``_extra_state`` of every module: nothing, a byte tensor that holds a pickled dict, or in
older versions a ``BytesIO`` that holds a dict of ``torch.save``. Only delayed scaling has something to forget.
"""

from __future__ import annotations

import io
from typing import Any

import torch

from megatron_nca.checkpoints import pickling

HISTORY, SCALE = "amax_history", "scale"


def is_extra_state(key: str) -> bool:
    """Tell whether a key of a model's state is Transformer Engine's."""
    return "._extra_state" in key


def cleared(state: Any) -> Any | None:
    """Return the state with empty histories and scales of one, or None where it has nothing to forget.

    Args:
        state: The value under ``_extra_state``.
    """
    if isinstance(state, torch.Tensor) and state.dtype == torch.uint8 and state.numel():
        values = pickling.load(io.BytesIO(bytes(state.cpu().numpy())))
        if not _clear(values):
            return None
        written = io.BytesIO()
        pickling.dump(values, written)
        return torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)
    if isinstance(state, io.BytesIO) and state.getbuffer().nbytes:
        values = torch.load(io.BytesIO(state.getvalue()), map_location="cpu", pickle_module=pickling, weights_only=False)
        if not _clear(values):
            return None
        written = io.BytesIO()
        torch.save(values, written, pickle_module=pickling)
        return written
    return None


def _clear(values: Any) -> bool:
    if not isinstance(values, dict) or not any(_begins(key, HISTORY) for key in values):
        return False
    for key, value in values.items():
        if _begins(key, HISTORY):
            values[key] = torch.zeros_like(value)
        elif _begins(key, SCALE) and isinstance(value, torch.Tensor):
            values[key] = torch.ones_like(value)
    return True


def _begins(key: Any, word: str) -> bool:
    return isinstance(key, str) and key.startswith(word)
