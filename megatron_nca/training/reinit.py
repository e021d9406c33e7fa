"""New weights for parts of a model, the same under every parallel layout.

A weight is a pure function of (seed, name, place): its name is that of the layer, counted over all pipeline stages, and each
rank draws the rows or slices it holds. So tensor, pipeline and data parallel ranks agree without speaking to each other, and
tied embeddings stay tied.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from megatron_nca.errors import NCAError
from megatron_nca.training.settings import PARTS as PARTS

ROW_BLOCK = 1024
"""Rows of an embedding that one seed draws; a rank never holds more than its own rows and two such blocks."""

SCALED_OUTPUTS = ("linear_proj", "linear_fc2")
"""Layers that Megatron initialises with ``output_layer_init_method``."""

Initializer = Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Target:
    """A parameter to draw anew.

    Attributes:
        name: Of the weight, the same on every rank that holds a part or a copy of it.
        parameter: The local tensor.
        initializer: Megatron's init method for it.
    """

    name: str
    parameter: torch.nn.Parameter
    initializer: Initializer


def check(model: Sequence[Any], parts: Sequence[str]) -> None:
    """Refuse, before training, a model that ``reinitialize`` cannot treat.

    Raises:
        NCAError: Its parameters are sharded by FSDP, or experts are asked for.
    """
    for target in _targets(model, parts):
        if type(target.parameter).__name__ == "DTensor" or hasattr(target.parameter, "_megatron_fsdp_model"):
            raise NCAError(
                "reinit: the model is sharded by FSDP, whose shards cannot be drawn anew in place; use --nca-reinit none, or "
                "train the NCA phase alone and start the text from `megatron-nca transfer`"
            )
        if ".experts." in f".{target.name}.":
            raise NCAError("reinit: mlp of a mixture of experts cannot be drawn anew; leave mlp out of the parts")


def reinitialize(model: Sequence[Any], parts: Sequence[str], seed: int) -> list[torch.nn.Parameter]:
    """Draw parts of a model anew, in place.

    Args:
        model: Megatron's model chunks of this rank.
        parts: Of ``PARTS``.
        seed: The same on every rank.

    Returns:
        The parameters that were drawn.
    """
    renewed = []
    for target in _targets(model, parts):
        with torch.no_grad():
            target.parameter.copy_(_draw(target, seed))
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
            yield Target("word_embeddings", weight, config.embedding_init_method)
        output: Any = getattr(module, "output_layer", None)
        if getattr(output, "weight", None) is None:
            continue
        if getattr(module, "share_embeddings_and_output_weights", False):
            # The last pipeline stage's copy of the tied embedding.
            yield Target("word_embeddings", output.weight, config.embedding_init_method)
        else:
            scaled = getattr(config, "use_mup", False)
            yield Target("output_layer", output.weight, config.embedding_init_method if scaled else config.init_method)


def _layer_targets(chunk: torch.nn.Module, parts: Sequence[str]) -> Iterator[Target]:
    for module in chunk.modules():
        if not (hasattr(module, "layer_number") and hasattr(module, "self_attention") and hasattr(module, "mlp")):
            continue
        for name, parameter in module.named_parameters():
            part = _part_of(name)
            if part in parts:
                full_name = f"layers.{module.layer_number}.{name}"
                yield Target(full_name, parameter, _initializer(name, parameter, module.config))
    if "norms" in parts:
        yield from _final_norm_targets(chunk)


def _final_norm_targets(chunk: torch.nn.Module) -> Iterator[Target]:
    for module in chunk.modules():
        norm = getattr(module, "final_layernorm", None)
        if isinstance(norm, torch.nn.Module):
            for name, parameter in norm.named_parameters():
                yield Target(f"final_layernorm.{name}", parameter, _norm_initializer(name, module.config))


def _part_of(name: str) -> str | None:
    """Tell which part a layer's parameter belongs to; a norm fused into a linear layer is a norm."""
    if "norm" in name:
        return "norms"
    if name.startswith(("self_attention.", "cross_attention.")):
        return "attention"
    return "mlp" if name.startswith("mlp.") else None


def _initializer(name: str, parameter: torch.Tensor, config: Any) -> Initializer:
    if "norm" in name:
        return _norm_initializer(name, config)
    if parameter.ndim == 1:
        return torch.nn.init.zeros_
    scaled = any(layer in name for layer in SCALED_OUTPUTS)
    return config.output_layer_init_method if scaled else config.init_method


def _norm_initializer(name: str, config: Any) -> Initializer:
    centred_at_zero = name.endswith("bias") or getattr(config, "layernorm_zero_centered_gamma", False)
    return torch.nn.init.zeros_ if centred_at_zero else torch.nn.init.ones_


def _draw(target: Target, seed: int) -> torch.Tensor:
    """Draw what this rank holds of a weight; float32 on the CPU, where the generator is the same on every machine."""
    parameter = target.parameter
    dim = getattr(parameter, "partition_dim", 0) if getattr(parameter, "tensor_model_parallel", False) else None
    rank, size = _tensor_parallel() if dim is not None else (0, 1)
    if parameter.ndim == 2 and dim in (None, 0) and _is_elementwise(target.initializer) and _is_embedding(target.name):
        return _draw_rows(target, seed, rank * parameter.shape[0])
    shape = list(parameter.shape)
    if dim is not None:
        shape[dim] *= size
    whole = _draw_tensor(target.initializer, shape, seed, target.name)
    if dim is None:
        return whole
    return _shard(whole, dim, rank, size, getattr(parameter, "partition_stride", 1))


def _draw_rows(target: Target, seed: int, first: int) -> torch.Tensor:
    """Draw rows ``first`` onwards of an embedding, block by block, so that no rank needs all of it."""
    rows, width = target.parameter.shape
    drawn = torch.empty(rows, width)
    for block in range(first // ROW_BLOCK, -(-(first + rows) // ROW_BLOCK)):
        values = _draw_tensor(target.initializer, [ROW_BLOCK, width], seed, f"{target.name}.{block}")
        begin, end = max(block * ROW_BLOCK, first), min((block + 1) * ROW_BLOCK, first + rows)
        drawn[begin - first : end - first] = values[begin - block * ROW_BLOCK : end - block * ROW_BLOCK]
    return drawn


def _draw_tensor(initializer: Initializer, shape: list[int], seed: int, name: str) -> torch.Tensor:
    digest = hashlib.sha256(f"megatron-nca|{seed}|{name}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:7], "little"))
        tensor = torch.empty(*shape, dtype=torch.float32, device="cpu")
        with torch.no_grad():
            initializer(tensor)
        return tensor


def _shard(whole: torch.Tensor, dim: int, rank: int, size: int, stride: int) -> torch.Tensor:
    """Take a rank's slices of a weight that is cut into ``size * stride`` pieces, as Megatron lays out gated layers."""
    pieces = torch.split(whole, whole.shape[dim] // (size * stride), dim=dim)
    return torch.cat(pieces[rank::size], dim=dim)


def _is_embedding(name: str) -> bool:
    return name in ("word_embeddings", "output_layer")


def _is_elementwise(initializer: Initializer) -> bool:
    """Whether the values do not depend on the tensor's shape, as those of Xavier's scheme do."""
    inner = initializer.func if isinstance(initializer, functools.partial) else initializer
    return inner in (torch.nn.init.normal_, torch.nn.init.trunc_normal_, torch.nn.init.zeros_)


def _tensor_parallel() -> tuple[int, int]:
    from megatron.core import parallel_state

    if not parallel_state.model_parallel_is_initialized():
        return 0, 1
    return parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()
