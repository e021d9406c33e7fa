"""New weights for parts of a model, in place and the same under every parallel layout.

Each rank draws the rows or slices it holds of a weight that depends on seed, name and place alone (see ``weights``). So
tensor, pipeline, expert and data parallel ranks agree without speaking to each other, and tied embeddings stay tied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from megatron_nca.errors import NCAError
from megatron_nca.interfaces.core import Model, ModelChunk
from megatron_nca.training import weights
from megatron_nca.training.fsdp import Shards
from megatron_nca.training.settings import PARTS as PARTS
from megatron_nca.training.weights import OUTPUT_LAYER, WORD_EMBEDDINGS, Initializer

FINAL_NORMS = ("final_layernorm", "final_norm")
"""What the norm behind the last layer is called in GPT models, and in hybrid ones."""

PREDICTION_NORMS = ("enorm", "hnorm", "final_layernorm", "layer_norm")
"""Norms of a multi-token prediction layer, around the transformer layer inside it."""

EXPERT = re.compile(r"^mlp\.experts\.(?:local_experts\.(\d+)\.(\w+\.\w+)|(linear_fc[12]\.(?:weight|bias))(\d+))$")
"""An expert's own parameter, one module an expert or all experts in one; the numbers count this rank's experts."""


@dataclass(frozen=True)
class Target:
    """A parameter to draw anew.

    Attributes:
        part: The part it belongs to, of ``PARTS``.
        name: Name of the weight, the same on every rank that holds a part or a copy of it.
        parameter: The local tensor.
        initializer: Megatron's init method for it.
        dim: The dimension along which ranks share the weight; None where each holds all of it.
        stride: Into how many pieces a rank's part is cut.
        is_expert: Whether the ranks that share it are those of the expert-tensor-parallel group.
    """

    part: str
    name: str
    parameter: torch.nn.Parameter
    initializer: Initializer
    dim: int | None = None
    stride: int = 1
    is_expert: bool = False


def check(model: Model, parts: Sequence[str]) -> None:
    """Refuse, before training, a model that ``reinitialize`` cannot treat.

    Raises:
        NCAError: All its experts lie in one parameter.
    """
    for target in _targets(model, parts):
        if ".mlp.experts." in target.name and not target.is_expert:
            raise NCAError(
                f"reinit: mlp of a mixture of experts: {target.name} holds all of a rank's experts, and is not drawn anew; "
                "leave mlp out of the parts, or leave out --moe-use-legacy-grouped-gemm and --moe-single-grouped-weight"
            )


Follower = Callable[[torch.nn.Parameter, torch.Tensor], None]
"""Takes a parameter that has its new weight, and the weight as it was drawn: float32, of the parameter's shape."""


def reinitialize(model: Model, parts: Sequence[str], seed: int, follow: Follower | None = None) -> list[torch.nn.Parameter]:
    """Draw parts of a model anew, in place.

    A parameter that Transformer Engine keeps in FP8, of whatever class, quantizes what is copied into it. Who needs the weight
    itself, as an optimizer's master copies do, must have it before that.

    Args:
        model: Megatron's model chunks of this rank.
        parts: Parts to draw anew, each one of ``PARTS``.
        seed: Seed of the new weights, the same on every rank.
        follow: Is told each weight as it was drawn, one at a time.

    Returns:
        The parameters that were drawn.
    """
    reinitialized, shards = [], Shards(model)
    for target in _targets(model, parts):
        parameter = shards.full(target.parameter)
        drawn = _draw(replace(target, parameter=parameter), seed)
        shards.write(parameter, drawn)
        if follow is not None:
            follow(target.parameter, drawn)
        reinitialized.append(target.parameter)
    if reinitialized:
        shards.install()
    return reinitialized


def count(model: Model, parts: Sequence[str]) -> dict[str, int]:
    """Count the parameters of each part, over all pipeline stages; a tied embedding is one on each stage that has a copy.

    Args:
        model: Megatron's model chunks of this rank; called on all ranks.
        parts: Parts to draw anew, each one of ``PARTS``.
    """
    found = [target.part for target in _targets(model, parts)]
    counts = torch.tensor([found.count(part) for part in parts], dtype=torch.int64)
    stages = _pipeline_group()
    if stages is not None and len(parts):
        if torch.distributed.get_backend(stages) == "nccl":
            counts = counts.cuda()
        torch.distributed.all_reduce(counts, group=stages)
    return dict(zip(parts, counts.tolist(), strict=True))


def _targets(model: Model, parts: Sequence[str]) -> list[Target]:
    found: dict[int, Target] = {}
    for chunk in model:
        for target in (*_embedding_targets(chunk), *_layer_targets(chunk), *_norm_targets(chunk)):
            if target.part in parts:
                found.setdefault(id(target.parameter), target)
    return list(found.values())


def _embedding_targets(chunk: ModelChunk) -> Iterator[Target]:
    for module in chunk.modules():
        config: Any = getattr(module, "config", None)
        embedding: Any = getattr(module, "word_embeddings", None)
        weight: Any = embedding.weight if isinstance(embedding, torch.nn.Module) else None
        if weight is not None:
            yield _target("embeddings", WORD_EMBEDDINGS, weight, config.embedding_init_method)
        output: Any = getattr(module, "output_layer", None)
        if getattr(output, "weight", None) is None:
            continue
        if getattr(module, "share_embeddings_and_output_weights", False):
            # The last pipeline stage's copy of the tied embedding.
            yield _target("embeddings", WORD_EMBEDDINGS, output.weight, config.embedding_init_method)
        else:
            yield _target("embeddings", OUTPUT_LAYER, output.weight, weights.output_initializer(config))


def _target(part: str, name: str, parameter: Any, initializer: Initializer, stride: int | None = None) -> Target:
    shared = getattr(parameter, "tensor_model_parallel", False)
    dim = getattr(parameter, "partition_dim", 0) if shared else None
    return Target(part, name, parameter, initializer, dim, stride or int(getattr(parameter, "partition_stride", 1)))


def _layer_targets(chunk: ModelChunk) -> Iterator[Target]:
    predictions = _prediction_layers(chunk)
    for path, module in chunk.named_modules():
        layer: Any = module
        if not _is_layer(layer):
            continue
        # Layers inside a prediction layer are counted from 1 again.
        prefix = next((f"mtp.{number}." for place, number in predictions.items() if path.startswith(f"{place}.")), "")
        for name, parameter in layer.named_parameters():
            part = weights.part_of(name)
            if part is not None:
                yield _layer_target(part, layer, prefix, name, parameter)


def _is_layer(module: Any) -> bool:
    """Return whether it is a transformer layer, or a state-space one."""
    mixes = hasattr(module, "mixer") or (hasattr(module, "self_attention") and hasattr(module, "mlp"))
    return hasattr(module, "layer_number") and mixes


def _prediction_layers(chunk: ModelChunk) -> dict[str, int]:
    """Return the numbers of multi-token prediction layers by their paths."""
    modules: Iterator[tuple[str, Any]] = chunk.named_modules()
    return {path: module.layer_number for path, module in modules if hasattr(module, "eh_proj")}


def _layer_target(part: str, layer: Any, prefix: str, name: str, parameter: torch.nn.Parameter) -> Target:
    expert = EXPERT.match(name)
    if expert is not None:
        return _expert_target(layer, prefix, expert, parameter)
    initializer = _recurrence_initializer(layer, name) or weights.layer_initializer(name, parameter.ndim, layer.config)
    full_name = weights.layer_name(layer.layer_number, name, prefix)
    return _target(part, full_name, parameter, initializer, _stride(name, layer.config))


def _expert_target(layer: Any, prefix: str, found: re.Match[str], parameter: torch.nn.Parameter) -> Target:
    """Return the target of one expert's parameter, named by its number over all ranks."""
    place, name = (found[1], found[2]) if found[1] is not None else (found[4], found[3])
    number = layer.mlp.local_expert_indices[int(place)]
    full_name = weights.layer_name(layer.layer_number, f"mlp.experts.{number}.{name}", prefix)
    initializer = weights.layer_initializer(name, parameter.ndim, layer.config)
    # Megatron does not say of every kind of expert how its parameters are shared.
    dim = 0 if "linear_fc1" in name else 1 if name.endswith("weight") else None
    return Target("mlp", full_name, parameter, initializer, dim, _stride(name, layer.config) or 1, is_expert=True)


def _recurrence_initializer(layer: Any, name: str) -> Initializer | None:
    attention: Any = getattr(layer, "self_attention", None)
    if not hasattr(attention, "A_init_range") or not weights.is_recurrence(name):
        return None
    soft = "_reset_dt_bias" in vars(type(attention))
    return weights.recurrence_initializer(name, attention.A_init_range, getattr(attention, "conv_init", None), soft)


def _norm_targets(chunk: ModelChunk) -> Iterator[Target]:
    """Yield the norms that lie outside layers."""
    modules: Iterator[Any] = chunk.modules()
    for module in modules:
        prediction = hasattr(module, "eh_proj")
        for holder in PREDICTION_NORMS if prediction else FINAL_NORMS:
            norm = getattr(module, holder, None)
            if not isinstance(norm, torch.nn.Module):
                continue
            prefix = f"mtp.{module.layer_number}." if prediction else ""
            for name, parameter in norm.named_parameters():
                initializer = weights.norm_initializer(name, module.config)
                yield _target("norms", f"{prefix}{holder}.{name}", parameter, initializer)


def _stride(name: str, config: Any) -> int | None:
    """Return 2 for gate and up of a gated layer, which Megatron before 0.16 does not say of the parameter; else None."""
    return 2 if "linear_fc1" in name and getattr(config, "gated_linear_unit", False) else None


def _draw(target: Target, seed: int) -> torch.Tensor:
    """Draw what this rank holds of a weight."""
    dim, shape = target.dim, list(target.parameter.shape)
    rank, size = (0, 1) if dim is None else _expert_tensor_parallel() if target.is_expert else _tensor_parallel()
    if dim is not None:
        shape[dim] *= size
    if target.name in (WORD_EMBEDDINGS, OUTPUT_LAYER) and dim in (None, 0):
        rows = target.parameter.shape[0]
        return weights.draw_rows(target.name, target.initializer, shape, seed, rank * rows, rows)
    whole = weights.draw(target.name, target.initializer, shape, seed)
    return whole if dim is None else weights.shard(whole, dim, rank, size, target.stride)


def _tensor_parallel() -> tuple[int, int]:
    from megatron.core import parallel_state

    if not parallel_state.model_parallel_is_initialized():
        return 0, 1
    return parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()


def _expert_tensor_parallel() -> tuple[int, int]:
    from megatron.core import parallel_state

    if not parallel_state.model_parallel_is_initialized():
        return 0, 1
    return parallel_state.get_expert_tensor_parallel_rank(), parallel_state.get_expert_tensor_parallel_world_size()


def _pipeline_group() -> Any:
    from megatron.core import parallel_state

    if not parallel_state.model_parallel_is_initialized():
        return None
    return parallel_state.get_pipeline_model_parallel_group()
