"""A small GPT of Megatron-Core in Transformer Engine's layers, trained in this process: what the switch meets in a run.

It trains on a GPU, or on the stand-in with the emulated extension. Tests, measurements of FP8 and the scripts for a GPU use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Batches = Callable[[int], tuple[torch.Tensor, torch.Tensor]]
"""Gives tokens and labels of a step, int64 (batch, sequence)."""

_MODEL = {
    "num_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "ffn_hidden_size": 128,
    "normalization": "RMSNorm",
    "gated_linear_unit": True,
    "activation_func": torch.nn.functional.silu,
    "add_bias_linear": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "bf16": True,
    "params_dtype": torch.bfloat16,
    "pipeline_dtype": torch.bfloat16,
    "attention_softmax_in_fp32": True,
    "gradient_accumulation_fusion": False,
    "apply_rope_fusion": False,
    "masked_softmax_fusion": False,
}


@contextmanager
def one_rank(seed: int = 1234) -> Iterator[None]:
    """Megatron-Core's groups and random numbers on one rank; Transformer Engine's lists are emptied at the end."""
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    torch.distributed.init_process_group("nccl", store=_store(), rank=0, world_size=1)
    try:
        parallel_state.initialize_model_parallel()
        torch.manual_seed(seed)
        model_parallel_cuda_manual_seed(seed)
        yield
    finally:
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
        forget_transformer_engine()


def _store() -> Any:
    return torch.distributed.HashStore()


def forget_transformer_engine() -> None:
    """Empty Transformer Engine's lists, which are the process's."""
    from transformer_engine.pytorch.fp8 import FP8GlobalStateManager

    FP8GlobalStateManager.reset()


def scaling_states() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(amax history, scale) of everything that delayed scaling has scaled, from the lists that Transformer Engine updates.

    Attention is in the lists too; where it has not run in FP8, its scales are ones and it is left out.
    """
    from transformer_engine.pytorch.fp8 import FP8GlobalStateManager

    held = getattr(FP8GlobalStateManager, "quantization_state", FP8GlobalStateManager)
    listed = [
        pair
        for key, histories in held.global_amax_history_buffer.items()
        for pair in zip(histories, held.global_scale_buffer[key], strict=True)
    ]
    return [(history, scale) for history, scale in listed if not (scale == 1).all()]


class Training:
    """A model and its distributed optimizer.

    Args:
        batches: The data.
        vocabulary: Rows of the embeddings.
        sequence: Tokens of a sample.
        recipe: Megatron's name of an FP8 recipe, or None for bf16.
        fused: Whether the MLP is one of te.ops.
        history: Length of delayed scaling's histories, and what becomes of them: max or most_recent.
        optimizer: Settings of `OptimizerConfig`.
        **model: Settings of `TransformerConfig`.
    """

    def __init__(
        self,
        batches: Batches,
        vocabulary: int,
        sequence: int,
        recipe: str | None = "delayed",
        fused: bool = False,
        history: tuple[int, str] = (8, "max"),
        optimizer: dict[str, Any] | None = None,
        **model: Any,
    ) -> None:
        self.batches, self.vocabulary, self.sequence = batches, vocabulary, sequence
        self.step = 0
        self.grad_norm = 0.0
        self.config = _config(recipe, history, model)
        self.model = self._build(fused)
        self.optimizer = self._build_optimizer(optimizer or {})

    @property
    def _shares_buffers(self) -> bool:
        """Whether gradients lend their buffer to the gathered weights, as MXFP8's weights need it."""
        return bool(self.config.fp8_param and self.config.fp8_recipe == "mxfp8")

    def _build(self, fused: bool) -> Any:
        from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
        from megatron.core.models.gpt import GPTModel
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_with_transformer_engine_spec
        from megatron.core.transformer.module import Float16Module

        experts = self.config.num_moe_experts
        options = {"use_te_op_fuser": True} if fused else {}
        options.update({"num_experts": experts, "moe_grouped_gemm": True} if experts else {})
        model = GPTModel(
            config=self.config,
            transformer_layer_spec=get_gpt_layer_with_transformer_engine_spec(**options),
            vocab_size=self.vocabulary,
            max_sequence_length=self.sequence,
            position_embedding_type="rope",
            share_embeddings_and_output_weights=False,
        )
        ddp = DistributedDataParallelConfig(
            use_distributed_optimizer=True,
            grad_reduce_in_fp32=True,
            fp8_param_gather=self.config.fp8_param,
            reuse_grad_buf_for_mxfp8_param_ag=self._shares_buffers,
        )
        return DistributedDataParallel(self.config, ddp, Float16Module(self.config, model.cuda()))

    def _build_optimizer(self, settings: dict[str, Any]) -> Any:
        from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

        recipe = {"fp8_recipe": self.config.fp8_recipe} if self.config.fp8 else {}
        common = {"optimizer": "adam", "lr": 1e-3, "min_lr": 1e-4, "weight_decay": 0.1, "clip_grad": 1.0}
        config = OptimizerConfig(
            bf16=True,
            params_dtype=torch.bfloat16,
            use_distributed_optimizer=True,
            reuse_grad_buf_for_mxfp8_param_ag=self._shares_buffers,
            **{**common, **recipe, **settings},
        )
        return get_megatron_optimizer(config, [self.model])

    def train(self, steps: int = 1) -> list[float]:
        """Train; returns the losses. `grad_norm` is the last step's afterwards."""
        losses = []
        for _ in range(steps):
            losses.append(self._forward_backward())
            updated, grad_norm, _ = self.optimizer.step()
            if not updated:
                raise RuntimeError(f"step {self.step} was skipped: its gradients are not finite")
            self.grad_norm = float(grad_norm)
            self.step += 1
        return losses

    def _forward_backward(self) -> float:
        from megatron.core.distributed import finalize_model_grads

        self.model.zero_grad_buffer()
        self.optimizer.zero_grad()
        for module in self.model.modules():
            if hasattr(module, "is_first_microbatch"):
                module.is_first_microbatch = True
        tokens, labels = (part.cuda() for part in self.batches(self.step))
        positions = torch.arange(self.sequence, device="cuda").expand(len(tokens), -1)
        mask = torch.ones(1, 1, self.sequence, self.sequence, dtype=torch.bool, device="cuda").triu(1)
        loss = self.model(tokens, positions, mask, labels=labels).float().mean()
        loss.backward()
        finalize_model_grads([self.model])
        return float(loss.item())


def _config(recipe: str | None, history: tuple[int, str], settings: dict[str, Any]) -> Any:
    from megatron.core.transformer import TransformerConfig

    fp8: dict[str, Any] = {}
    if recipe is not None:
        length, algorithm = history
        fp8 = {"fp8": "hybrid", "fp8_recipe": recipe, "fp8_amax_history_len": length, "fp8_amax_compute_algo": algorithm}
    return TransformerConfig(**{**_MODEL, **fp8, **settings})


class Casts:
    """Counts what becomes of the values that are cast to FP8: shares of those that become zero, and of those out of range.

    Only the emulated extension can be watched. A context.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._counts = {True: [0, 0, 0, 0], False: [0, 0, 0, 0]}

    def __enter__(self) -> Casts:
        from megatron_nca.rehearsal.extension import quantizing

        quantizing.WATCHERS.append(self._watch)
        return self

    def __exit__(self, *exception: object) -> None:
        from megatron_nca.rehearsal.extension import quantizing

        quantizing.WATCHERS.remove(self._watch)

    def _watch(self, quantizer: Any, values: torch.Tensor, scale: torch.Tensor) -> None:
        from megatron_nca.rehearsal.extension.formats import LARGEST
        from megatron_nca.rehearsal.extension.names import DType

        gradient = int(quantizer.dtype) == DType.kFloat8E5M2
        # Half of the smallest number rounds to zero, ties to even; what rounds down to the largest is not out of range.
        smallest, limit = (2.0**-17, LARGEST[DType.kFloat8E5M2]) if gradient else (2.0**-10, LARGEST[DType.kFloat8E4M3])
        scaled = (values * scale).abs()
        counts = self._counts[gradient]
        counts[0] += int(((values != 0) & (scaled <= smallest)).sum())
        counts[1] += int((values != 0).sum())
        counts[2] += int((scaled > limit * (1 + 2**-10)).sum())
        counts[3] += values.numel()

    def flushed(self, gradients: bool) -> float:
        """Share of the values that are not zero and become zero, among gradients or among weights and activations."""
        lost, total = self._counts[gradients][:2]
        return lost / max(total, 1)

    def saturated(self) -> float:
        """Share of all values that are beyond their format's range."""
        return sum(counts[2] for counts in self._counts.values()) / max(sum(counts[3] for counts in self._counts.values()), 1)
