"""The model, its optimizer and its schedule: all Megatron-Core's, in the shape of a small Llama."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import Float16Module

WEIGHT_DECAY = 0.1
FINAL_SHARE = 0.1
"""Learning rate at the end of a decay, as a share of the peak."""
WARMUP_SHARE = 0.1
"""Share of a phase over which the learning rate rises."""


@dataclass(frozen=True)
class Shape:
    """A model's size.

    Attributes:
        layers: Transformer layers.
        hidden: Width.
        heads: Attention heads.
        feed_forward: Inner width of SwiGLU.
        sequence: Tokens of a sample.
    """

    layers: int = 4
    hidden: int = 128
    heads: int = 4
    feed_forward: int = 352
    sequence: int = 256


class BlockedAttention(torch.nn.Module):
    """Causal attention for a CPU: two halves of the queries, so that a quarter of the scores is never computed.

    At this size it is twice as fast on a CPU as torch's scaled_dot_product_attention, forward and backward. The
    arguments are those that a layer's specification passes to its core attention.
    """

    def __init__(self, config: TransformerConfig, **_: Any) -> None:
        super().__init__()
        self.scale = (config.hidden_size // config.num_attention_heads) ** -0.5

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Attend; tensors are (sequence, batch, heads, width of a head), the result (sequence, batch, hidden)."""
        length, batch, heads, width = query.shape
        query, key, value = (part.reshape(length, batch * heads, width).transpose(0, 1) for part in (query, key, value))
        future = torch.full((length, length), -math.inf, dtype=query.dtype, device=query.device).triu(1)
        halves = []
        for begin, end in ((0, length // 2), (length // 2, length)):
            scores = torch.baddbmm(future[begin:end, :end], query[:, begin:end], key[:, :end].transpose(1, 2), alpha=self.scale)
            halves.append(torch.bmm(torch.softmax(scores, -1), value[:, :end]))
        return torch.cat(halves, 1).transpose(0, 1).reshape(length, batch, heads * width)


def build_model(shape: Shape, vocabulary: int, bf16: bool) -> Any:
    """Build the model, with gradients in Megatron's float32 buffers, from the present state of the random numbers.

    Args:
        shape: Its size.
        vocabulary: Rows of the embeddings; input and output embedding are separate.
        bf16: Whether it computes in bf16; in float32 otherwise.
    """
    # Embeddings of std 1: at the customary 0.02 the layers that NCA has trained would drown new ones out, and text alone learns
    # faster with 1, too (arXiv:2312.16903).
    config = TransformerConfig(
        num_layers=shape.layers, hidden_size=shape.hidden, num_attention_heads=shape.heads, ffn_hidden_size=shape.feed_forward,
        normalization="RMSNorm", gated_linear_unit=True, activation_func=torch.nn.functional.silu, add_bias_linear=False,
        hidden_dropout=0.0, attention_dropout=0.0, init_method_std=0.5 / math.sqrt(shape.hidden), embedding_init_method_std=1.0,
        bf16=bf16, params_dtype=torch.bfloat16 if bf16 else torch.float32, calculate_per_token_loss=True,
        finalize_model_grads_func=finalize_model_grads,
    )  # fmt: skip
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.self_attention.submodules.core_attention = BlockedAttention
    model = GPTModel(
        config, layer, vocabulary, shape.sequence, position_embedding_type="rope", share_embeddings_and_output_weights=False
    )
    module = Float16Module(config, model.cuda()) if bf16 else model.cuda()
    return DistributedDataParallel(config, DistributedDataParallelConfig(), module)


def build_optimizer(model: Any, peak: float, embedding_peak: float) -> Any:
    """Build Megatron's Adam, mixed-precision for a bf16 model; the embeddings have their own rate (`--decoupled-lr`)."""
    config = OptimizerConfig(
        optimizer="adam", lr=peak, min_lr=peak * FINAL_SHARE, decoupled_lr=embedding_peak,
        decoupled_min_lr=embedding_peak * FINAL_SHARE, weight_decay=WEIGHT_DECAY, adam_beta2=0.95, clip_grad=1.0,
        bf16=model.config.bf16, params_dtype=model.config.params_dtype,
    )  # fmt: skip
    optimizer = get_megatron_optimizer(config, [model])
    for group in optimizer.param_groups:
        # Megatron-Core 0.16 tells groups of parameters apart by this mark when it loads a checkpoint, and leaves it unset.
        group["is_decoupled_lr"] = group["max_lr"] != peak
    return optimizer


def build_scheduler(optimizer: Any, peak: float, samples: int, text_samples: int) -> OptimizerParamScheduler:
    """Build the run's schedule: linear warm-up, cosine decay. The plugin lets it begin anew at the switch.

    Args:
        optimizer: Whose rates it sets.
        peak: Peak learning rate of the layers.
        samples: Length of the run in samples.
        text_samples: Samples of text, of which the warm-up is a share.
    """
    return OptimizerParamScheduler(
        optimizer, init_lr=0.0, max_lr=peak, min_lr=peak * FINAL_SHARE, lr_warmup_steps=int(WARMUP_SHARE * text_samples),
        lr_decay_steps=samples, lr_decay_style="cosine", start_wd=WEIGHT_DECAY, end_wd=WEIGHT_DECAY, wd_incr_steps=samples,
        wd_incr_style="constant",
    )  # fmt: skip
