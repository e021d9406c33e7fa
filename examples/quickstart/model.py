"""The model: Megatron-Core's GPTModel in the shape of a small Llama, in its DistributedDataParallel."""

from __future__ import annotations

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer import TransformerConfig

from examples.quickstart.settings import Settings

NORM = "RMSNorm"
HIDDEN_MULTIPLE = 32
EMBEDDING_STD = 1.0
"""Of new input embeddings. At the customary 0.02 the layers that the NCA phase has trained would drown them out; the baseline,
too, learns faster with 1 (arXiv:2312.16903)."""


def build_model(settings: Settings, vocab_size: int) -> DistributedDataParallel:
    """Build the model with random weights from the present state of Megatron's random number generators.

    Args:
        settings: Gives layers, width and heads.
        vocab_size: Rows of the embeddings. Input and output embedding are separate, as in Llama.

    Returns:
        The model on its device, gradients in Megatron's buffers.
    """
    config = transformer_config(settings)
    model = GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_layer_local_spec(normalization=NORM),
        vocab_size=vocab_size,
        max_sequence_length=settings.sequence_length,
        position_embedding_type="rope",
        share_embeddings_and_output_weights=False,
    )
    return DistributedDataParallel(config, DistributedDataParallelConfig(), model.cuda())


def transformer_config(settings: Settings) -> TransformerConfig:
    """Describe the layers: RMSNorm, SwiGLU, no biases, no dropout, in float32."""
    return TransformerConfig(
        num_layers=settings.layers,
        hidden_size=settings.hidden,
        num_attention_heads=settings.heads,
        ffn_hidden_size=swiglu_width(settings.hidden),
        normalization=NORM,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        embedding_init_method_std=EMBEDDING_STD,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        # Summed losses are divided by the number of labels of the whole global batch, so sharing it between ranks differently
        # does not change a step.
        calculate_per_token_loss=True,
        finalize_model_grads_func=finalize_model_grads,
    )


def swiglu_width(hidden: int) -> int:
    """Return the inner width that gives the three matrices of SwiGLU the parameters of a plain MLP of width 4 * hidden."""
    return -(-8 * hidden // (3 * HIDDEN_MULTIPLE)) * HIDDEN_MULTIPLE


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
