"""What Megatron-LM's arguments say of data."""

from __future__ import annotations

from megatron_nca.data.curriculum import Blend
from megatron_nca.interfaces.megatron_lm import Arguments


def blends_of(args: Arguments) -> tuple[Blend | None, ...]:
    """Return train, valid and test data, as Megatron's (prefixes, weights)."""
    from megatron.training.utils import get_blend_and_blend_per_split

    if getattr(args, "mock_data", False):
        return (None, None, None)
    blend, per_split = get_blend_and_blend_per_split(args)
    return tuple(per_split) if per_split else (blend, blend, blend)
