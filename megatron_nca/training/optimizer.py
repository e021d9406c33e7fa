"""Megatron's optimizers at the switch: fp32 master copies follow new weights, moments and step start anew.

Covered are the fp32, mixed-precision and distributed optimizers around torch's, apex's and Transformer Engine's Adams, chained
or not, with master copies in the optimizer (mixed precision) or in its state (precision-aware).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from megatron_nca.errors import NCAError

MASTER_KEYS = ("master_param", "param_remainder")
"""State of a precision-aware optimizer that holds weights, not moments."""


def check(optimizer: Any) -> None:
    """Refuse, before training, an optimizer whose state cannot be started anew.

    Raises:
        NCAError: It keeps parts of its state in optimizers of its own on the CPU, or is sharded by FSDP.
    """
    for leaf in leaves(optimizer):
        inner = getattr(leaf, "optimizer", leaf)
        if hasattr(inner, "sub_optimizers"):
            raise NCAError(
                "optimizer: CPU offload (--optimizer-cpu-offload) keeps copies of weights and moments that the transition "
                "cannot follow; turn it off, or train the NCA phase alone and start the text from `megatron-nca transfer`"
            )
        if getattr(getattr(leaf, "ddp_config", None), "use_megatron_fsdp", False):
            raise NCAError(
                "optimizer: Megatron FSDP shards the state in its own way; use --nca-reinit none --nca-optimizer keep, or "
                "train without FSDP"
            )


def leaves(optimizer: Any) -> Iterator[Any]:
    """Yield Megatron's optimizers inside chained ones; nothing for None."""
    if optimizer is None:
        return
    chained = getattr(optimizer, "chained_optimizers", None)
    if chained is None:
        yield optimizer
        return
    for member in chained:
        yield from leaves(member)


def copy_to_master(optimizer: Any, parameters: Sequence[torch.nn.Parameter]) -> None:
    """Copy new model weights into the optimizer's fp32 copies, and into nothing else.

    Args:
        optimizer: Megatron's.
        parameters: The model's parameters that changed.
    """
    changed = {id(parameter): parameter for parameter in parameters}
    for leaf in leaves(optimizer):
        for parameter, master, shard in _masters(leaf, changed):
            values = parameter.detach() if shard is None else parameter.detach().reshape(-1)[shard]
            with torch.no_grad():
                master.copy_(values.reshape(master.shape))
        _forget_state_masters(leaf, changed)


def reset_state(optimizer: Any) -> None:
    """Zero the moments and step counters of every parameter, in place; master copies and loss scale are kept."""
    for leaf in leaves(optimizer):
        inner = getattr(leaf, "optimizer", leaf)
        for state in inner.state.values():
            _zero_moments(state)
        for group in inner.param_groups:
            if "step" in group:
                group["step"] = torch.zeros_like(group["step"]) if isinstance(group["step"], torch.Tensor) else 0


def _zero_moments(state: dict[str, Any]) -> None:
    for key, value in state.items():
        if key in MASTER_KEYS:
            continue
        if isinstance(value, torch.Tensor):
            value.zero_()
        elif key == "step":
            state[key] = 0


def _masters(
    leaf: Any, changed: dict[int, torch.nn.Parameter]
) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor, slice | None]]:
    """Yield (model parameter, its master, the part of the flat parameter that the master holds or None for all)."""
    for parameter in _own_parameters(leaf, changed):
        master = getattr(parameter, "main_param", None)
        if master is None:
            continue
        if getattr(parameter, "main_param_sharded", False):
            held = leaf._get_model_param_range_map(parameter)["param"]
            yield parameter, master, slice(held.start, held.end)
        else:
            yield parameter, master, None


def _own_parameters(leaf: Any, changed: dict[int, torch.nn.Parameter]) -> Iterator[torch.nn.Parameter]:
    owned = getattr(leaf, "model_param_gbuf_map", None)
    if owned is not None:
        yield from (parameter for parameter in owned if id(parameter) in changed)
        return
    for group in getattr(leaf, "float16_groups", []):
        yield from (parameter for parameter in group if id(parameter) in changed)


def _forget_state_masters(leaf: Any, changed: dict[int, torch.nn.Parameter]) -> None:
    """Drop the state of changed parameters whose master lies in it; the next step makes it from the new weights."""
    inner = getattr(leaf, "optimizer", leaf)
    groups = zip(getattr(leaf, "model_float16_groups", []), getattr(leaf, "shard_float16_groups", []), strict=False)
    for model_group, shard_group in groups:
        for parameter, shard in zip(model_group, shard_group, strict=False):
            state = inner.state.get(shard) if id(parameter) in changed else None
            if state and any(key in state for key in MASTER_KEYS):
                state.clear()
