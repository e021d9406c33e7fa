"""Weights that FSDP shards: where a rank's part of each lies, and how a whole weight is written into it.

Megatron-FSDP keeps the weights of several parameters in one buffer, cut over the data-parallel ranks: a main buffer that the
optimizer updates and one that the model computes with, of which either may be missing. The module's parameters are at times the
whole ones, their storage freed, and at times the optimizer's, which are parts of the buffers. PyTorch's FSDP2 makes each
parameter a DTensor, cut along its first dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from megatron_nca.interfaces.core import Model


@dataclass(frozen=True)
class _Place:
    """Where Megatron-FSDP keeps a weight."""

    buffer: Any
    group: Any
    full: torch.nn.Parameter


class Shards:
    """The sharded weights of a model; one without FSDP has none.

    Args:
        model: Megatron's model chunks of this rank.
    """

    def __init__(self, model: Model) -> None:
        self._chunks: list[Any] = [chunk for chunk in model if hasattr(_buffer(chunk), "optimizer_named_parameters")]
        self._places: dict[int, _Place] = {}
        for chunk in self._chunks:
            buffer = _buffer(chunk)
            for place in _places(buffer):
                self._places[id(place.full)] = place
            for _, part in buffer.optimizer_named_parameters:
                self._places[id(part)] = self._places[id(part.orig_param)]

    def full(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        """Return the parameter that has the weight's whole shape, as far as tensor parallelism leaves it whole."""
        place = self._places.get(id(parameter))
        return parameter if place is None else place.full

    def write(self, parameter: torch.nn.Parameter, weight: torch.Tensor) -> None:
        """Write this rank's part of a weight into every place that keeps one.

        Args:
            parameter: A parameter as ``full`` returns it.
            weight: float32, of its shape.
        """
        place = self._places.get(id(parameter))
        if place is None:
            _write(parameter, weight)
            return
        kept = place.group.main_weight_buffer or place.group.model_weight_buffer
        if kept is None:
            parameter.data.copy_(weight)
        else:
            kept.set_item(kept.param_idx[parameter], weight.to(kept.dtype).to(kept.data.device))

    def install(self) -> None:
        """Let the model compute with what was written, as after an optimizer's step."""
        for chunk in self._chunks:
            # The first weights of the coming step may have been gathered, as they were.
            chunk.module.synchronize_param_gather()
            _buffer(chunk).copy_main_weights_to_model_weights()
            chunk.start_param_sync()


def _buffer(chunk: Any) -> Any:
    return getattr(chunk, "param_and_grad_buffer", None)


def _places(buffer: Any) -> Iterator[_Place]:
    for group in buffer.parameter_groups:
        for parameter in group.params:
            yield _Place(buffer, group, parameter)


def _write(parameter: torch.nn.Parameter, weight: torch.Tensor) -> None:
    with torch.no_grad():
        if not hasattr(parameter, "device_mesh"):
            parameter.copy_(weight)
            return
        held: Any = parameter
        local = held.to_local()
        local.copy_(part_of(held, weight))


def part_of(held: Any, weight: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a weight that is kept as a DTensor like ``held``; nothing is communicated."""
    from torch.distributed.tensor import distribute_tensor

    full = weight.to(held.to_local().device)
    return distribute_tensor(full, held.device_mesh, held.placements, src_data_rank=None).to_local()
