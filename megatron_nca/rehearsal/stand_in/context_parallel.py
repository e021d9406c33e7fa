"""Attention under context parallelism, which Megatron-Core's own attention leaves to Transformer Engine's GPU kernels.

A rank r of n holds chunks r and 2 n - 1 - r of 2 n of a sequence. Its queries meet the keys and values of all ranks, gathered
into the sequence's order; Megatron's attention mask is cut along the queries alone, so it fits as it is.
"""

import copy
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from megatron_nca.patching import after_import
from megatron_nca.rehearsal.stand_in.replacing import replace

_MODULE = "megatron.core.transformer.dot_product_attention"


def install() -> None:
    """Replace what `DotProductAttention` does where there is a context-parallel group, once Megatron-Core is imported."""
    after_import(_MODULE, _change)


def _change(module: ModuleType) -> None:
    attention = module.DotProductAttention
    replace(attention, __init__=_with_context(attention.__init__), forward=_over_all_keys(attention.forward))


def _with_context(construct: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(construct)
    def constructed(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        # Megatron-Core refuses a context that it cannot read; the layer itself is the same.
        alone = copy.copy(config)
        alone.context_parallel_size = 1
        construct(self, alone, *args, **kwargs)
        self.config = config

    return constructed


def _over_all_keys(attend: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(attend)
    def forward(self: Any, query: Any, key: Any, value: Any, attention_mask: Any, *args: Any, **kwargs: Any) -> Any:
        if self.config.context_parallel_size == 1:
            return attend(self, query, key, value, attention_mask, *args, **kwargs)
        from megatron.core import parallel_state

        group = parallel_state.get_context_parallel_group()
        whole_key, whole_value = (_WholeSequence.apply(part, group) for part in (key, value))
        if attention_mask is None:
            attention_mask = _causal_mask(
                query.shape[0], torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
            )
        return attend(self, query, whole_key, whole_value, attention_mask, *args, **kwargs)

    return forward


def places(length: int, rank: int, ranks: int) -> torch.Tensor:
    """Return the positions of a sequence that a rank holds.

    Args:
        length: Tokens that each rank holds.
        rank: The rank.
        ranks: Their number.

    Returns:
        int64 (length,), in the rank's own order.
    """
    chunk = length // 2
    front, back = rank * chunk, (2 * ranks - 1 - rank) * chunk
    return torch.cat([torch.arange(front, front + chunk), torch.arange(back, back + chunk)])


def _causal_mask(length: int, rank: int, ranks: int) -> torch.Tensor:
    """True where a query of this rank must not look: (1, 1, queries, keys)."""
    keys = torch.arange(length * ranks)
    return (keys[None, :] > places(length, rank, ranks)[:, None])[None, None]


class _WholeSequence(torch.autograd.Function):
    """(local sequence, ...) of every rank -> (sequence, ...); the gradient of a token goes to the rank that holds it."""

    @staticmethod
    def forward(context: Any, part: torch.Tensor, group: Any) -> torch.Tensor:
        context.group, ranks = group, torch.distributed.get_world_size(group)
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(ranks)]
        torch.distributed.all_gather(parts, part.contiguous(), group=group)
        order = torch.cat([places(len(part), rank, ranks) for rank in range(ranks)])
        whole = torch.cat(parts)
        return torch.empty_like(whole).index_copy_(0, order, whole)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        group, ranks = context.group, torch.distributed.get_world_size(context.group)
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total, group=group)
        return total[places(len(total) // ranks, torch.distributed.get_rank(group), ranks)], None
