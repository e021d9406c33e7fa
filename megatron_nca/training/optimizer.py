"""Megatron's optimizers at the switch: master copies follow new weights, moments and step start anew.

Covered are the fp32, mixed-precision and distributed optimizers around torch's, apex's and Transformer Engine's Adams, chained
or not, with master copies in the optimizer (mixed precision) or in its state (precision-aware). Everything is written into the
tensors that are there: a captured CUDA graph goes on reading and writing them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from megatron_nca.errors import NCAError
from megatron_nca.interfaces.core import MegatronOptimizer
from megatron_nca.training.fsdp import part_of

MASTER = "master_param"
"""State of a precision-aware optimizer that holds a weight, or the bits that a bf16 parameter lacks of it, and no moment."""

BASES = ("Q_L", "Q_R")
"""State of a SOAP optimizer that rotates gradients into the eigenbases of their statistics, and starts as an identity."""

RADIUS = "hyperball_R"
"""State of an optimizer on a sphere: the norm that a weight has had from its beginning, no moment."""

_LOW_BITS = 0xFFFF
_HALF = 0x8000


def check(optimizer: MegatronOptimizer | None) -> None:
    """Refuse, before training, an optimizer whose state cannot be started anew.

    Raises:
        NCAError: It keeps parts of its state in optimizers of its own on the CPU.
    """
    for leaf in leaves(optimizer):
        inner = getattr(leaf, "optimizer", leaf)
        if hasattr(inner, "sub_optimizers"):
            raise NCAError(
                "optimizer: CPU offload (--optimizer-cpu-offload) keeps copies of weights and moments that the transition "
                "cannot follow; turn it off, or train the NCA phase alone and start the text from `megatron-nca transfer`"
            )


def leaves(optimizer: MegatronOptimizer | None) -> Iterator[Any]:
    """Yield Megatron's optimizers inside chained ones; nothing for None."""
    if optimizer is None:
        return
    chained = getattr(optimizer, "chained_optimizers", None)
    if chained is None:
        yield optimizer
        return
    for member in chained:
        yield from leaves(member)


def reset_state(optimizer: MegatronOptimizer | None) -> None:
    """Zero the moments and step counters of every parameter, in place; master copies and loss scale are kept."""
    for leaf in leaves(optimizer):
        inner = getattr(leaf, "optimizer", leaf)
        for state in inner.state.values():
            _zero_moments(state)
        for group in inner.param_groups:
            _zero(group, "step")


def _zero_moments(state: dict[str, Any]) -> None:
    for key, value in state.items():
        if key == "step" or (key not in (MASTER, RADIUS) and isinstance(value, torch.Tensor)):
            _zero(state, key)
        if key in BASES:
            value.fill_diagonal_(1)


def _zero(held: dict[str, Any], key: str) -> None:
    """Zero a tensor in place, or a number."""
    if isinstance(held.get(key), torch.Tensor):
        with torch.no_grad():
            held[key].zero_()
    elif key in held:
        held[key] = 0


class MasterWeights:
    """The copies of more bits that an optimizer keeps of model weights.

    Args:
        optimizer: Megatron's, or None.
    """

    def __init__(self, optimizer: MegatronOptimizer | None) -> None:
        self._held: dict[int, list[_MasterWeight]] = {}
        for leaf in leaves(optimizer):
            for parameter, master in _masters(leaf):
                self._held.setdefault(id(parameter), []).append(master)

    def take(self, parameter: torch.nn.Parameter, weight: torch.Tensor) -> None:
        """Write a new weight into the copies of one parameter, and into nothing else.

        Args:
            parameter: The model's, which already holds the weight in its own type, quantized perhaps.
            weight: float32, of the parameter's shape.
        """
        for master in self._held.get(id(parameter), ()):
            with torch.no_grad():
                master.take(parameter, weight)


@dataclass(frozen=True)
class _MasterWeight:
    """One copy, of all of a parameter or of the part that this rank updates.

    Attributes:
        tensor: float32 where it is the optimizer's own; None where the inner optimizer's state holds it.
        part: Slice of the flat parameter; None for all of it.
        inner: The inner optimizer.
        shard: The inner optimizer's parameter.
    """

    tensor: torch.Tensor | None
    part: slice | None
    inner: Any = None
    shard: Any = None

    def take(self, parameter: torch.nn.Parameter, weight: torch.Tensor) -> None:
        values = weight if self.part is None else weight.reshape(-1)[self.part]
        if hasattr(self.tensor, "device_mesh"):
            held: Any = self.tensor
            held.to_local().copy_(part_of(held, weight))
            return
        if self.tensor is not None:
            self.tensor.copy_(values.reshape(self.tensor.shape))
            return
        # Without a state yet, the first step makes the master of the weight itself.
        held = self.inner.state.get(self.shard, {}).get(MASTER)
        if held is None:
            return
        values = values.to(device=held.device, dtype=torch.float32).reshape(held.shape)
        if held.dtype == torch.int16:
            held.copy_(_remainder(values, self.shard.detach().reshape(held.shape)))
        elif held.dtype == torch.float32:
            held.copy_(values)
        else:
            # Fewer bits come with a scale beside the state, which Transformer Engine's own method writes in place.
            self.inner.set_scaled_state(self.shard, MASTER, values.clone())


def _remainder(weight: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return the lower halves of float32 weights whose upper halves are a bf16 parameter rounded to nearest.

    Transformer Engine takes a lower half of 0x8000 and more, negative as int16, as a sign that the upper half was rounded up.
    Of a tie that was rounded down, to even, the lower half becomes one less: the weight is a float32's last bit off.
    """
    bits = weight.view(torch.int32)
    low = bits & _LOW_BITS
    rounded_down = parameter.view(torch.int16) == (bits >> 16).to(torch.int16)
    return torch.where(rounded_down & (low == _HALF), low - 1, low).to(torch.int16)


def _masters(leaf: Any) -> Iterator[tuple[torch.nn.Parameter, _MasterWeight]]:
    """Yield (model parameter, master) of one of Megatron's optimizers."""
    yield from _state_masters(leaf)
    for parameter in _own_parameters(leaf):
        master = getattr(parameter, "main_param", None)
        if master is None:
            continue
        sharded = getattr(parameter, "main_param_sharded", False)
        yield parameter, _MasterWeight(master, _part(leaf, parameter) if sharded else None)


def _own_parameters(leaf: Any) -> Iterator[torch.nn.Parameter]:
    owned = getattr(leaf, "model_param_gbuf_map", None)
    if owned is not None:
        yield from owned
        return
    for group in getattr(leaf, "float16_groups", []):
        yield from group


def _state_masters(leaf: Any) -> Iterator[tuple[torch.nn.Parameter, _MasterWeight]]:
    inner = getattr(leaf, "optimizer", leaf)
    groups = zip(getattr(leaf, "model_float16_groups", []), getattr(leaf, "shard_float16_groups", []), strict=False)
    for model_group, shard_group in groups:
        for parameter, shard in zip(model_group, shard_group, strict=False):
            # Where Megatron-Core keeps the masters itself, there may be no shard of a quantized parameter.
            if getattr(parameter, "main_param", None) is None and shard is not None:
                yield parameter, _MasterWeight(None, _part(leaf, parameter), inner, shard)


def _part(leaf: Any, parameter: torch.nn.Parameter) -> slice:
    held = leaf._get_model_param_range_map(parameter)["param"]
    return slice(held.start, held.end)
