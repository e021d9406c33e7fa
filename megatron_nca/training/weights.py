"""A new weight as a pure function of (seed, name, place), and the init method that draws it.

Names count layers over all pipeline stages, so a weight is the same under every parallel layout: at the switch inside a run,
where each rank draws what it holds, and in ``megatron-nca transfer``, which writes a checkpoint without a model.

A ``config`` is Megatron's ``TransformerConfig``, or anything with its ``init_method``, ``output_layer_init_method``,
``embedding_init_method``, ``layernorm_zero_centered_gamma`` and ``use_mup``.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

WORD_EMBEDDINGS, OUTPUT_LAYER = "word_embeddings", "output_layer"

ROW_BLOCK = 1024
"""Rows of an embedding that one seed draws; a rank never holds more than its own rows and two such blocks."""

SCALED_OUTPUTS = ("linear_proj", "linear_fc2")
"""Layers that Megatron initialises with ``output_layer_init_method``."""

RECURRENCES = ("A_log", "dt_bias", "conv1d")
"""Parameters of a linear-attention layer that its own initialisers draw: decays, step sizes, short convolutions."""

Initializer = Callable[[torch.Tensor], Any]


def layer_name(number: int, name: str, prefix: str = "") -> str:
    """Name a parameter of layer ``number``, counted from 1 over the whole model, or within what the prefix names."""
    return f"{prefix}layers.{number}.{name}"


def part_of(name: str) -> str | None:
    """Tell which part a layer's parameter belongs to; a norm fused into a linear layer is a norm."""
    if "norm" in name:
        return "norms"
    if name.startswith(("self_attention.", "cross_attention.")):
        return "attention"
    return "mlp" if name.startswith("mlp.") else None


def output_initializer(config: Any) -> Initializer:
    """Return the init method of an output layer that is not tied to the embedding."""
    scaled = getattr(config, "use_mup", False)
    initializer: Initializer = config.embedding_init_method if scaled else config.init_method
    return initializer


def layer_initializer(name: str, dimensions: int, config: Any) -> Initializer:
    """Return the init method of a layer's parameter of so many dimensions."""
    if "norm" in name:
        return norm_initializer(name, config)
    if is_recurrence(name):
        return recurrence_initializer(name)
    if dimensions == 1:
        return torch.nn.init.zeros_
    scaled = any(layer in name for layer in SCALED_OUTPUTS)
    initializer: Initializer = config.output_layer_init_method if scaled else config.init_method
    return initializer


def is_recurrence(name: str) -> bool:
    """Tell whether a parameter is one of ``RECURRENCES``."""
    return any(piece == word or piece.startswith(f"{word}_") for piece in name.split(".") for word in RECURRENCES)


def recurrence_initializer(
    name: str, decays: tuple[float, float] = (1, 16), convolution: float | None = None, soft_steps: bool = False
) -> Initializer:
    """Return the init method of one of a linear-attention layer's ``RECURRENCES``, as Megatron's GatedDeltaNet has them.

    Args:
        name: Name of the parameter.
        decays: Bounds of A, of which the parameter is the logarithm.
        convolution: Bound of the convolution's weights; None for PyTorch's own of a convolution.
        soft_steps: Whether step sizes are drawn, log-uniform in 0.001 to 0.1 behind a softplus, and not all ones.
    """
    if "A_log" in name:
        return lambda tensor: tensor.uniform_(*decays).log_()
    if "dt_bias" in name:
        return _draw_steps if soft_steps else torch.nn.init.ones_
    if convolution is not None and not name.endswith("bias"):
        return lambda tensor: tensor.uniform_(-convolution, convolution)
    return _draw_convolution


def _draw_steps(tensor: torch.Tensor) -> torch.Tensor:
    steps = tensor.uniform_(math.log(0.001), math.log(0.1)).exp_()
    return tensor.copy_(steps + torch.log(-torch.expm1(-steps)))


def _draw_convolution(tensor: torch.Tensor) -> torch.Tensor:
    # A channel has a kernel of its own, so a weight's fan-in is the kernel's size. Megatron's kernels have four taps.
    taps = tensor.shape[-1] if tensor.ndim > 1 else 4
    return tensor.uniform_(-(taps**-0.5), taps**-0.5)


def norm_initializer(name: str, config: Any) -> Initializer:
    """Return the init method of a norm's weight or bias."""
    centred_at_zero = name.endswith("bias") or getattr(config, "layernorm_zero_centered_gamma", False)
    return torch.nn.init.zeros_ if centred_at_zero else torch.nn.init.ones_


def draw(name: str, initializer: Initializer, shape: Sequence[int], seed: int) -> torch.Tensor:
    """Draw a whole weight: float32, on the CPU, where the generator is the same on every machine."""
    digest = hashlib.sha256(f"megatron-nca|{seed}|{name}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:7], "little"))
        tensor = torch.empty(*shape, dtype=torch.float32, device="cpu")
        with torch.no_grad():
            initializer(tensor)
        return tensor


def draw_rows(name: str, initializer: Initializer, shape: Sequence[int], seed: int, first: int, rows: int) -> torch.Tensor:
    """Draw some rows of an embedding.

    Args:
        name: ``WORD_EMBEDDINGS`` or ``OUTPUT_LAYER``.
        initializer: Its init method.
        shape: Shape of the whole embedding, (padded vocabulary, hidden size).
        seed: Seed of the new weights.
        first: The first row wanted.
        rows: How many.

    Returns:
        float32 (rows, hidden size). Where the init method treats every element alike, a row depends on its place alone and not
        on the vocabulary's size.
    """
    if not _is_elementwise(initializer):
        return draw(name, initializer, shape, seed)[first : first + rows]
    width = shape[1]
    drawn = torch.empty(rows, width)
    for block in range(first // ROW_BLOCK, -(-(first + rows) // ROW_BLOCK)):
        values = draw(f"{name}.{block}", initializer, [ROW_BLOCK, width], seed)
        begin, end = max(block * ROW_BLOCK, first), min((block + 1) * ROW_BLOCK, first + rows)
        drawn[begin - first : end - first] = values[begin - block * ROW_BLOCK : end - block * ROW_BLOCK]
    return drawn


def shard(whole: torch.Tensor, dim: int, rank: int, size: int, stride: int) -> torch.Tensor:
    """Take a rank's slices of a weight that is cut into ``size * stride`` pieces, as Megatron lays out gated layers."""
    pieces = torch.split(whole, whole.shape[dim] // (size * stride), dim=dim)
    return torch.cat(pieces[rank::size], dim=dim)


def _is_elementwise(initializer: Initializer) -> bool:
    """Return whether the values do not depend on the tensor's shape, as those of Xavier's scheme do."""
    inner = initializer.func if isinstance(initializer, functools.partial) else initializer
    return inner in (torch.nn.init.normal_, torch.nn.init.trunc_normal_, torch.nn.init.zeros_)
