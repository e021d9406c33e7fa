"""Routing without an auxiliary loss: its biases forget NCA.

A router under ``--moe-router-enable-expert-bias`` adds a bias to each expert's score, raised or lowered by how many tokens the
expert got, step by step. Its values are of the optimizer's kind: they come from the data's statistics, and no gradient moves
them.
"""

from __future__ import annotations

from typing import Any

from megatron_nca.interfaces.core import Model

BUFFERS = ("expert_bias", "local_tokens_per_expert")


def reset_biases(model: Model) -> int:
    """Zero every router's biases and counts in place, as they are in a new model.

    Args:
        model: Megatron's model chunks of this rank.

    Returns:
        How many routers had a bias.
    """
    routers = [module for chunk in model for module in chunk.modules() if _is_biased(module)]
    for router in routers:
        for name in BUFFERS:
            buffer = getattr(router, name, None)
            if buffer is not None:
                buffer.zero_()
    return len(routers)


def _is_biased(module: Any) -> bool:
    # Megatron freezes a bias that a checkpoint brought to stay.
    return getattr(module, "expert_bias", None) is not None and not getattr(module, "frozen_expert_bias", False)
