"""FP8 at the switch: no amax history or scale of NCA activations scales text.

Transformer Engine's delayed scaling keeps, in every module, a history of largest magnitudes and the scales derived from it.
Current and block scaling keep none; then there is nothing to do, and the count returned says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SCALING_DIRECTIONS = ("scaling_fwd", "scaling_bwd")


def reset_scaling_state(model: Sequence[Any]) -> int:
    """Clear amax histories and set scales to one, in place, so that captured graphs and reduction buffers stay valid.

    Args:
        model: Megatron's model chunks.

    Returns:
        How many modules had such state.
    """
    modules = (module for chunk in model for module in chunk.modules())
    return sum(_reset_module(module) for module in modules)


def _reset_module(module: Any) -> bool:
    meta = getattr(module, "fp8_meta", None)
    if not isinstance(meta, dict):
        return False
    histories = [_reset_direction(meta[direction]) for direction in SCALING_DIRECTIONS if direction in meta]
    return any(histories)


def _reset_direction(state: Any) -> bool:
    history = getattr(state, "amax_history", None)
    if history is None:
        return False
    history.zero_()
    state.scale.fill_(1)
    inverse = getattr(state, "scale_inv", None)
    if inverse is not None:
        inverse.fill_(1)
    return True
