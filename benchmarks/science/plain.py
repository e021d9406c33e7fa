"""The quickstart's model and training written once more, in plain PyTorch: nothing of Megatron's, nothing of the plugin's.

It is what a run on Megatron-Core is checked against, step by step (`benchmarks.science.agreement`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-5
"""Epsilon of the norms."""
ROTARY_BASE = 10000.0
BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class Rates:
    """Learning rates of a phase: a linear warm-up, then a cosine.

    Attributes:
        layers: Peak of the layers.
        embeddings: Peak of the input and output embeddings.
        warmup: Samples until the peak.
        decay: Samples until the end of the cosine.
        final: Share of the peak that is left at the end.
    """

    layers: float
    embeddings: float
    warmup: int
    decay: int
    final: float = 0.1

    def share(self, samples: int) -> float:
        """Return the rate after so many samples of the phase, as a share of its peak."""
        if samples <= self.warmup:
            return samples / self.warmup
        done = min(1.0, (samples - self.warmup) / (self.decay - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


class Layer(nn.Module):
    """One layer: attention with rotary positions, SwiGLU, a norm before each; no biases."""

    def __init__(self, hidden: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.Parameter(torch.ones(hidden)), nn.Parameter(torch.ones(hidden))
        self.query_key_value = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.projection = nn.Parameter(torch.empty(hidden, hidden))
        self.gate_up = nn.Parameter(torch.empty(2 * feed_forward, hidden))
        self.down = nn.Parameter(torch.empty(hidden, feed_forward))

    def forward(self, hidden: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the hidden states, (batch, sequence, hidden), behind the layer."""
        batch, length, width = hidden.shape
        normed = functional.rms_norm(hidden, (width,), self.norm_1, EPSILON)
        # Rows of a head stand together: its queries, its keys, its values.
        mixed = functional.linear(normed, self.query_key_value).view(batch, length, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        query, key, value = _turned(mixed[0], turn), _turned(mixed[1], turn), mixed[2]
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + functional.linear(attended.transpose(1, 2).reshape(batch, length, width), self.projection)
        normed = functional.rms_norm(hidden, (width,), self.norm_2, EPSILON)
        gate, up = functional.linear(normed, self.gate_up).chunk(2, -1)
        return hidden + functional.linear(functional.silu(gate) * up, self.down)


class Plain(nn.Module):
    """A small Llama with separate input and output embeddings.

    Args:
        layers: How many.
        hidden: Width.
        heads: Attention heads.
        feed_forward: Inner width of SwiGLU.
        sequence: Tokens of a sample.
        vocabulary: Rows of the embeddings.
    """

    def __init__(self, layers: int, hidden: int, heads: int, feed_forward: int, sequence: int, vocabulary: int) -> None:
        super().__init__()
        self.embedding, self.output = (
            nn.Parameter(torch.empty(vocabulary, hidden)),
            nn.Parameter(torch.empty(vocabulary, hidden)),
        )
        self.layers = nn.ModuleList(Layer(hidden, heads, feed_forward) for _ in range(layers))
        self.norm = nn.Parameter(torch.ones(hidden))
        width = hidden // heads
        frequencies = ROTARY_BASE ** (-torch.arange(0, width, 2).float() / width)
        angles = torch.arange(sequence).float()[:, None] * frequencies
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each label in nats, float32 (batch, sequence)."""
        hidden = functional.embedding(tokens, self.embedding)
        for layer in self.layers:
            hidden = layer(hidden, (self.cosine, self.sine))
        logits = functional.linear(functional.rms_norm(hidden, hidden.shape[-1:], self.norm, EPSILON), self.output)
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none").view(labels.shape)

    def load_megatron(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the weights of a Megatron-Core GPTModel, by its state's names; a tensor that is missing is a KeyError."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(state[megatron_name(name)])


MEGATRON_NAMES = {
    "embedding": "embedding.word_embeddings.weight",
    "output": "output_layer.weight",
    "norm": "decoder.final_layernorm.weight",
    "norm_1": "input_layernorm.weight",
    "norm_2": "pre_mlp_layernorm.weight",
    "query_key_value": "self_attention.linear_qkv.weight",
    "projection": "self_attention.linear_proj.weight",
    "gate_up": "mlp.linear_fc1.weight",
    "down": "mlp.linear_fc2.weight",
}


def megatron_name(name: str) -> str:
    """Return what Megatron-Core calls a parameter of `Plain`."""
    if name.startswith("layers."):
        _, number, part = name.split(".")
        return f"decoder.layers.{number}.{MEGATRON_NAMES[part]}"
    return MEGATRON_NAMES[name]


def build_adam(model: Plain, weight_decay: float, embeddings_decay: bool = True) -> torch.optim.AdamW:
    """Build AdamW in three groups: layers, embeddings, and norms, which do not decay.

    Args:
        model: Whose parameters it changes.
        weight_decay: Weight decay of the layers and of what else decays.
        embeddings_decay: Whether input and output embeddings decay.
    """
    embeddings = [model.embedding, model.output]
    norms = [parameter for name, parameter in model.named_parameters() if "norm" in name]
    apart = {id(parameter) for parameter in (*embeddings, *norms)}
    layers = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    groups = [
        {"params": layers, "weight_decay": weight_decay, "embeddings": False},
        {"params": embeddings, "weight_decay": weight_decay * embeddings_decay, "embeddings": True},
        {"params": norms, "weight_decay": 0.0, "embeddings": False},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)


def take_step(
    model: Plain,
    optimizer: torch.optim.AdamW,
    batch: Mapping[str, torch.Tensor],
    rates: Rates,
    samples: int,
    bf16: bool = False,
) -> float:
    """Take one step; return the mean loss of a label before it, in nats.

    Args:
        model: The model.
        optimizer: Its optimizer.
        batch: `tokens`, `labels`, int64, and `loss_mask`, float32, each (batch, sequence).
        rates: Learning rates of the phase.
        samples: Samples of the phase that were read before this step.
        bf16: Whether products are computed in bf16; weights and hidden states stay float32.
    """
    for group in optimizer.param_groups:
        group["lr"] = (rates.embeddings if group["embeddings"] else rates.layers) * rates.share(samples)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        losses = model(batch["tokens"], batch["labels"])
    loss = (losses * batch["loss_mask"]).sum() / batch["loss_mask"].sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _turned(heads: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn each pair of a head's halves by its position's angle; (batch, heads, sequence, width)."""
    cosine, sine = turn
    left, right = heads.chunk(2, -1)
    return torch.cat((left * cosine - right * sine, right * cosine + left * sine), -1)


def parameters_of(model: Plain) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each parameter with the name that Megatron-Core has for it."""
    for name, parameter in model.named_parameters():
        yield megatron_name(name), parameter
