"""Bridge's own ``pretrain`` from NCA to text, of a model that a CPU trains in seconds; the CPU stands in for a GPU.

    python tests/bridge/tiny_pretrain.py TEXT --folder FOLDER [--die-after STEP] [--sleep-after STEP SECONDS] [OVERRIDE ...]
    python tests/bridge/tiny_pretrain.py TEXT --folder FOLDER --path WORD ... -- [OVERRIDE ...]

TEXT is the prefix of an indexed dataset. Run again with the same FOLDER, it goes on from the last checkpoint. With --die-after
the last rank kills itself after that step, as a lost node would; with --sleep-after that step takes so many seconds longer.
With --precision its layers are Transformer Engine's, under one of the mixed precisions of Bridge's recipes.
"""

# ruff: noqa: E402
import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from megatron_nca.rehearsal import install
from megatron_nca.rehearsal.bridge import names

install()
names.provide()

import megatron.core.datasets.utils

# The package of Megatron-Core brings its helpers compiled, and no makefile to compile them by, which Bridge calls all the same.
megatron.core.datasets.utils.compile_helpers = lambda: None

import torch
from megatron.bridge.models.gpt_provider import GPTModelProvider
from megatron.bridge.recipes.common import _pretrain_common
from megatron.bridge.training.callbacks import Callback
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.mixed_precision import MixedPrecisionConfig
from megatron.bridge.training.pretrain import pretrain
from megatron.bridge.training.utils.omegaconf_utils import process_config_with_overrides
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec, get_gpt_layer_with_transformer_engine_spec

import megatron_nca
from megatron_nca.frameworks.megatron_bridge import with_nca

STEPS, SEQUENCE, BATCH = 24, 64, 8
ENTRY = "nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64"


class PrintState(Callback):
    """Prints every step's loss and learning rate, and dies or sleeps where it is told to."""

    def __init__(self, die_after: int | None, sleep_after: tuple[int, int] | None) -> None:
        self.die_after = die_after
        self.sleep_after = sleep_after

    def on_train_step_end(self, context: Any) -> None:
        """Print in full precision, so that two runs can be compared bit for bit."""
        step = context.state.train_state.step + 1
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        if rank == 0:
            loss = next(iter(context.loss_dict.values()))
            print(f"LOSS {step} {float(loss).hex()} {context.optimizer.param_groups[0]['lr'].hex()}", flush=True)
        if step == self.die_after and rank == ranks - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.sleep_after and step == self.sleep_after[0]:
            time.sleep(self.sleep_after[1])


def layer_spec(config: Any) -> Any:
    """Return layers without Transformer Engine."""
    return get_gpt_layer_local_spec()


def transformer_engine_spec(config: Any) -> Any:
    """Return Transformer Engine's layers."""
    return get_gpt_layer_with_transformer_engine_spec()


def config(folder: str, precision: str | None) -> Any:
    """Return Bridge's pre-training config, made small and put on a CPU; it has no data path.

    Some of Bridge's mixed precisions keep the first and the last layer in BF16: those runs have four layers.
    """
    cfg = _pretrain_common()
    cfg.model = GPTModelProvider(
        num_layers=4 if precision else 2, hidden_size=64, ffn_hidden_size=128, num_attention_heads=4, seq_length=SEQUENCE,
        make_vocab_size_divisible_by=64, transformer_layer_spec=transformer_engine_spec if precision else layer_spec,
        transformer_impl="transformer_engine" if precision else "local",
        hidden_dropout=0.0, attention_dropout=0.0, masked_softmax_fusion=False, bias_activation_fusion=False,
        bias_dropout_fusion=False, gradient_accumulation_fusion=False, persist_layer_norm=False, apply_rope_fusion=False,
        deallocate_pipeline_outputs=False, cross_entropy_loss_fusion=False, position_embedding_type="rope",
    )  # fmt: skip
    cfg.mixed_precision = precision or MixedPrecisionConfig(grad_reduce_in_fp32=True)
    cfg.tokenizer.tokenizer_type, cfg.tokenizer.vocab_size = "NullTokenizer", 255
    cfg.dataset.seq_length, cfg.dataset.num_workers, cfg.dataset.split = SEQUENCE, 0, "90,5,5"
    cfg.dataset.path_to_cache = f"{folder}/cache"
    cfg.train.train_iters, cfg.train.global_batch_size, cfg.train.micro_batch_size = STEPS, BATCH, 4
    cfg.train.eval_interval, cfg.train.eval_iters = 5, 1
    cfg.optimizer.lr, cfg.optimizer.min_lr = 1e-3, 1e-4
    cfg.optimizer.use_distributed_optimizer = cfg.ddp.use_distributed_optimizer = False
    cfg.optimizer.use_precision_aware_optimizer = False
    cfg.optimizer.bf16, cfg.optimizer.params_dtype = bool(precision), torch.bfloat16 if precision else torch.float32
    cfg.ddp.overlap_param_gather = cfg.ddp.overlap_grad_reduce = False
    cfg.scheduler.lr_warmup_iters = 2
    cfg.checkpoint.save = cfg.checkpoint.load = f"{folder}/checkpoint"
    cfg.checkpoint.save_interval, cfg.checkpoint.async_save = 5, False
    cfg.logger.log_interval, cfg.logger.tensorboard_dir = 1, None
    cfg.dist.distributed_backend = "gloo"
    return cfg


def main() -> None:
    """Pre-train, from the last checkpoint in the folder where there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("text")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--sleep-after", type=int, nargs=2)
    parser.add_argument("--path", nargs="+")
    parser.add_argument("--precision")
    args, overrides = parser.parse_known_args()
    cfg = config(args.folder, args.precision)
    if args.path is None:
        with_nca(cfg, ENTRY, args.text)
    else:
        megatron_nca.register()
        cfg.dataset.blend = megatron.core.datasets.utils.get_blend_from_list(args.path)
    cfg = process_config_with_overrides(cfg, cli_overrides=[word for word in overrides if word != "--"])
    pretrain(cfg, forward_step, callbacks=[PrintState(args.die_after, args.sleep_after)])


if __name__ == "__main__":
    main()
