"""A GPT of Megatron-Core in Transformer Engine's layers, trained in this process: what the switch meets in a run."""

from contextlib import contextmanager

import torch

SEQUENCE, BATCH, VOCABULARY = 32, 4, 64
RECIPES = ("delayed", "tensorwise", "blockwise", "mxfp8")


@contextmanager
def one_rank():
    """Megatron-Core's groups and random numbers on one rank."""
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    torch.distributed.init_process_group("nccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel_state.initialize_model_parallel()
        model_parallel_cuda_manual_seed(1234)
        yield
    finally:
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
        forget_transformer_engine()


def forget_transformer_engine():
    """Empty Transformer Engine's lists, which are the process's."""
    from transformer_engine.pytorch.fp8 import FP8GlobalStateManager

    FP8GlobalStateManager.reset()


class Training:
    """A model, its optimizer and batches that depend on the step alone.

    Args:
        recipe: Of FP8, or None for bf16.
        fused: Whether the MLP is one of te.ops.
        optimizer: Settings of the optimizer.
        model: Settings of the model.
    """

    def __init__(self, recipe="delayed", fused=False, optimizer=None, **model):
        self.step = 0
        self.config = self._config(recipe, model)
        self.model = self._build(fused)
        self.optimizer = self._build_optimizer({"use_distributed_optimizer": True, **(optimizer or {})})

    def _config(self, recipe, settings):
        from megatron.core.transformer import TransformerConfig

        if recipe is not None:
            fp8 = {"fp8": "hybrid", "fp8_recipe": recipe, "fp8_amax_history_len": 8, "fp8_amax_compute_algo": "max"}
            settings = {**fp8, **settings}
        defaults = {
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
        return TransformerConfig(**{**defaults, **settings})

    def _spec(self, fused):
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_with_transformer_engine_spec

        experts = self.config.num_moe_experts
        options = {"use_te_op_fuser": True} if fused else {}
        options.update({"num_experts": experts, "moe_grouped_gemm": True} if experts else {})
        return get_gpt_layer_with_transformer_engine_spec(**options)

    def _build(self, fused):
        from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
        from megatron.core.models.gpt import GPTModel
        from megatron.core.transformer.module import Float16Module

        model = GPTModel(
            config=self.config,
            transformer_layer_spec=self._spec(fused),
            vocab_size=VOCABULARY,
            max_sequence_length=SEQUENCE,
            position_embedding_type="rope",
            share_embeddings_and_output_weights=False,
        )
        ddp = DistributedDataParallelConfig(
            use_distributed_optimizer=True,
            grad_reduce_in_fp32=True,
            fp8_param_gather=self.config.fp8_param,
            reuse_grad_buf_for_mxfp8_param_ag=self._shares_buffers(),
        )
        return DistributedDataParallel(self.config, ddp, Float16Module(self.config, model.cuda()))

    def _shares_buffers(self):
        """Whether gradients lend their buffer to the gathered weights, as MXFP8's weights need it."""
        return bool(self.config.fp8_param and self.config.fp8_recipe == "mxfp8")

    def _build_optimizer(self, settings):
        from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

        config = OptimizerConfig(
            optimizer="adam", lr=1e-3, min_lr=1e-4, weight_decay=0.1, bf16=True, params_dtype=torch.bfloat16, clip_grad=1.0,
            **({"fp8_recipe": self.config.fp8_recipe} if self.config.fp8 else {}),
            reuse_grad_buf_for_mxfp8_param_ag=self._shares_buffers(), **settings,
        )  # fmt: skip
        return get_megatron_optimizer(config, [self.model])

    def batch(self, scale=1):
        """(tokens, labels): a short cycle that a model learns in a few steps."""
        generator = torch.Generator().manual_seed(self.step)
        start = torch.randint(0, VOCABULARY, (BATCH, 1), generator=generator)
        row = (start + scale * torch.arange(SEQUENCE + 1)) % VOCABULARY
        return row[:, :-1], row[:, 1:]

    def forward_backward(self, micro_batches=1, scale=1):
        """Add the gradients of a step; returns its loss."""
        from megatron.core.distributed import finalize_model_grads

        self.model.zero_grad_buffer()
        self.optimizer.zero_grad()
        for module in self.model.modules():
            if hasattr(module, "is_first_microbatch"):
                module.is_first_microbatch = True
        total = 0.0
        for _ in range(micro_batches):
            tokens, labels = self.batch(scale)
            positions = torch.arange(SEQUENCE).expand(BATCH, -1)
            mask = torch.ones(1, 1, SEQUENCE, SEQUENCE, dtype=torch.bool).triu(1)
            loss = self.model(tokens, positions, mask, labels=labels).float().mean()
            (loss / micro_batches).backward()
            total += loss.item() / micro_batches
        finalize_model_grads([self.model])
        return total

    def train(self, steps=1, **options):
        """Train; returns the losses."""
        losses = []
        for _ in range(steps):
            losses.append(self.forward_backward(**options))
            updated, _, _ = self.optimizer.step()
            assert updated
            self.step += 1
        return losses
