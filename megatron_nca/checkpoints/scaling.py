"""FP8 scaling state in a checkpoint: no amax history of NCA activations scales text, and every scale is kept.

Transformer Engine keeps it under ``_extra_state`` of every module: nothing, a byte tensor that holds a pickled dict, or in
older versions a ``BytesIO`` that holds a dict of ``torch.save``. An operation of ``te.ops`` keeps a dict each for its forward
and its backward inside that. Only delayed scaling has something to forget. See ``megatron_nca.training.fp8`` for the reasons.
"""

from __future__ import annotations

import io
from typing import Any

import torch

from megatron_nca.checkpoints import pickling

HISTORY = "amax_history"


def is_extra_state(key: str) -> bool:
    """Tell whether a key of a model's state is Transformer Engine's."""
    return "._extra_state" in key


def cleared(state: Any) -> Any | None:
    """Return the state with empty histories, or None where it has none.

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
    """Empty the histories in a dict and in those inside it; tell whether there were any."""
    found = False
    for key, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            found = _clear(value) or found
        elif isinstance(key, str) and key.startswith(HISTORY):
            values[key] = torch.zeros_like(value)
            found = True
    return found
