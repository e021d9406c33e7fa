"""New weights for parts of a model, in place and the same under every parallel layout.

Each rank draws the rows or slices it holds of a weight that depends on seed, name and place alone (see ``weights``). So
tensor, pipeline and data parallel ranks agree without speaking to each other, and tied embeddings stay tied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from megatron_nca.errors import NCAError
from megatron_nca.training import weights
from megatron_nca.training.settings import PARTS as PARTS
from megatron_nca.training.weights import OUTPUT_LAYER, WORD_EMBEDDINGS, Initializer


@dataclass(frozen=True)
class Target:
    """A parameter to draw anew.

    Attributes:
        name: Of the weight, the same on every rank that holds a part or a copy of it.
        parameter: The local tensor.
        initializer: Megatron's init method for it.
        stride: Into how many pieces a tensor-parallel rank's part is cut.
    """

    name: str
    parameter: torch.nn.Parameter
    initializer: Initializer
    stride: int = 1


def check(model: Sequence[Any], parts: Sequence[str]) -> None:
    """Refuse, before training, a model that ``reinitialize`` cannot treat.

    Raises:
        NCAError: Its parameters are sharded by FSDP, or experts are asked for.
    """
    for target in _targets(model, parts):
        if type(target.parameter).__name__ == "DTensor" or hasattr(target.parameter, "_megatron_fsdp_model"):
            raise NCAError(
                "reinit: the model is sharded by FSDP, whose shards cannot be drawn anew in place; use --nca-reinit none, or "
                "train without FSDP"
            )
        if ".experts." in f".{target.name}.":
            raise NCAError("reinit: mlp of a mixture of experts cannot be drawn anew; leave mlp out of the parts")


Follower = Callable[[torch.nn.Parameter, torch.Tensor], None]
"""Takes a parameter that has its new weight, and the weight as it was drawn: float32, of the parameter's shape."""


def reinitialize(
    model: Sequence[Any], parts: Sequence[str], seed: int, follow: Follower | None = None
) -> list[torch.nn.Parameter]:
    """Draw parts of a model anew, in place.

    A parameter that Transformer Engine keeps in FP8, of whatever class, quantizes what is copied into it. Who needs the weight
    itself, as an optimizer's master copies do, must have it before that.

    Args:
        model: Megatron's model chunks of this rank.
        parts: Of ``PARTS``.
        seed: The same on every rank.
        follow: Is told each weight as it was drawn, one at a time.

    Returns:
        The parameters that were drawn.
    """
    renewed = []
    for target in _targets(model, parts):
        drawn = _draw(target, seed)
        with torch.no_grad():
            target.parameter.copy_(drawn)
        if follow is not None:
            follow(target.parameter, drawn)
        renewed.append(target.parameter)
    return renewed


def _targets(model: Sequence[Any], parts: Sequence[str]) -> list[Target]:
    found: dict[int, Target] = {}
    for chunk in model:
        if "embeddings" in parts:
            for target in _embedding_targets(chunk):
                found.setdefault(id(target.parameter), target)
        for target in _layer_targets(chunk, parts):
            found.setdefault(id(target.parameter), target)
    return list(found.values())


def _embedding_targets(chunk: torch.nn.Module) -> Iterator[Target]:
    for module in chunk.modules():
        config: Any = getattr(module, "config", None)
        embedding: Any = getattr(module, "word_embeddings", None)
        weight: Any = embedding.weight if isinstance(embedding, torch.nn.Module) else None
        if weight is not None:
            yield Target(WORD_EMBEDDINGS, weight, config.embedding_init_method)
        output: Any = getattr(module, "output_layer", None)
        if getattr(output, "weight", None) is None:
            continue
        if getattr(module, "share_embeddings_and_output_weights", False):
            # The last pipeline stage's copy of the tied embedding.
            yield Target(WORD_EMBEDDINGS, output.weight, config.embedding_init_method)
        else:
            yield Target(OUTPUT_LAYER, output.weight, weights.output_initializer(config))


def _layer_targets(chunk: torch.nn.Module, parts: Sequence[str]) -> Iterator[Target]:
    modules: Iterator[Any] = chunk.modules()
    for module in modules:
        if not (hasattr(module, "layer_number") and hasattr(module, "self_attention") and hasattr(module, "mlp")):
            continue
        for name, parameter in module.named_parameters():
            if weights.part_of(name) in parts:
                full_name = weights.layer_name(module.layer_number, name)
                initializer = weights.layer_initializer(name, parameter.ndim, module.config)
                yield Target(full_name, parameter, initializer, _stride(name, parameter, module.config))
    if "norms" in parts:
        yield from _final_norm_targets(chunk)


def _final_norm_targets(chunk: torch.nn.Module) -> Iterator[Target]:
    for module in chunk.modules():
        norm = getattr(module, "final_layernorm", None)
        if isinstance(norm, torch.nn.Module):
            for name, parameter in norm.named_parameters():
                yield Target(f"final_layernorm.{name}", parameter, weights.norm_initializer(name, module.config))


def _stride(name: str, parameter: torch.Tensor, config: Any) -> int:
    """Return 2 for gate and up of a gated layer, which Megatron before 0.16 does not say of the parameter."""
    gated = "linear_fc1" in name and getattr(config, "gated_linear_unit", False)
    return 2 if gated else getattr(parameter, "partition_stride", 1)


def _draw(target: Target, seed: int) -> torch.Tensor:
    """Draw what this rank holds of a weight."""
    parameter = target.parameter
    dim = getattr(parameter, "partition_dim", 0) if getattr(parameter, "tensor_model_parallel", False) else None
    rank, size = _tensor_parallel() if dim is not None else (0, 1)
    shape = list(parameter.shape)
    if dim is not None:
        shape[dim] *= size
    if target.name in (WORD_EMBEDDINGS, OUTPUT_LAYER) and dim in (None, 0):
        rows = parameter.shape[0]
        return weights.draw_rows(target.name, target.initializer, shape, seed, rank * rows, rows)
    whole = weights.draw(target.name, target.initializer, shape, seed)
    return whole if dim is None else weights.shard(whole, dim, rank, size, target.stride)


def _tensor_parallel() -> tuple[int, int]:
    from megatron.core import parallel_state

    if not parallel_state.model_parallel_is_initialized():
        return 0, 1
    return parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()
