"""What Megatron-LM's arguments say of data, validation and graphs."""

from __future__ import annotations

from typing import Any


def blends_of(args: Any) -> tuple[Any, ...]:
    """Return train, valid and test data, as Megatron's (prefixes, weights)."""
    from megatron.training.utils import get_blend_and_blend_per_split

    if getattr(args, "mock_data", False):
        return (None, None, None)
    blend, per_split = get_blend_and_blend_per_split(args)
    return tuple(per_split) if per_split else (blend, blend, blend)


def eval_batch_sizes_of(args: Any) -> tuple[int, int] | None:
    """Return a validation's global and micro batch, where it has its own."""
    # Versions differ in whether validation has batch sizes of its own.
    sizes = getattr(args, "eval_global_batch_size", None), getattr(args, "eval_micro_batch_size", None)
    if not any(sizes):
        return None
    return sizes[0] or args.global_batch_size, sizes[1] or args.micro_batch_size


def replays_steps_of(args: Any) -> bool:
    """Tell whether a CUDA graph replays whole steps, so that no Python runs in them."""
    scopes = getattr(args, "cuda_graph_scope", None) or ()
    names = [str(scope) for scope in scopes] if isinstance(scopes, (list, tuple)) else [str(scopes)]
    return getattr(args, "cuda_graph_impl", None) == "full_iteration" or any("full_iteration" in name for name in names)
