"""A real ``llm.pretrain`` from NCA to text that a CPU finishes in seconds.

    python -m megatron_nca.rehearsal --plain examples/nemo/tiny_pretrain.py FOLDER TEXT [--die-after STEP] [--wait-after STEP]

TEXT is the prefix of an indexed dataset of bytes. Run again with the same FOLDER, it goes on from the last checkpoint. With
--die-after the last rank kills itself after that step, as a lost node would; with --wait-after all wait there for a signal. At
SIGURG it saves and ends. With --precision its layers are Transformer Engine's, under that precision of NeMo's recipes.
"""

import argparse
import os
import signal
import sys
from typing import Any

if "apex.optimizers" in sys.modules:
    # NeMo asks Apex for more optimizers than the CPU stand-in has; this name is registered and never used here.
    sys.modules["apex.optimizers"].FusedLAMB = sys.modules["apex.optimizers"].FusedAdam  # type: ignore[attr-defined]

import fiddle
import lightning.pytorch as lightning
import nemo.lightning as nl
import torch
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec, get_gpt_layer_with_transformer_engine_spec
from megatron.core.optimizer import OptimizerConfig
from nemo.collections import llm
from nemo.collections.llm.recipes.precision.mixed_precision import bf16_mixed, bf16_with_fp8_mixed
from nemo.lightning.pytorch.callbacks import PreemptionCallback
from nemo.lightning.pytorch.optim import CosineAnnealingScheduler, MegatronOptimizerModule

from megatron_nca.frameworks.nemo import NCADataModule

STEPS, SEQUENCE, BATCH = 24, 64, 8
ENTRY = "nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64"


class Bytes:
    """A tokenizer of bytes."""

    vocab_size, eod, eos_id, bos_id, pad_id = 256, 255, 255, 254, 0
    unique_identifiers = {"class": "Bytes"}  # noqa: RUF012


class PrintLosses(lightning.Callback):
    """Prints every step's loss, and dies or waits where it is told to."""

    def __init__(self, die_after: int | None, wait_after: int | None) -> None:
        self.die_after = die_after
        self.wait_after = wait_after

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        """Print in full precision, so that two runs can be compared bit for bit."""
        if trainer.is_global_zero:
            print(f"LOSS {trainer.global_step} {float(trainer.callback_metrics['reduced_train_loss']).hex()}", flush=True)
        if trainer.global_step == self.die_after and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.global_step == self.wait_after:
            signal.pause()


def layer_spec(config: Any) -> Any:
    """Return layers without Transformer Engine."""
    return get_gpt_layer_local_spec()


def transformer_engine_spec(config: Any) -> Any:
    """Return Transformer Engine's layers."""
    return get_gpt_layer_with_transformer_engine_spec()


def model(transformer_engine: bool) -> llm.GPTModel:
    """Return a model of two layers."""
    config = llm.GPTConfig(
        num_layers=2,
        hidden_size=64,
        ffn_hidden_size=128,
        num_attention_heads=4,
        seq_length=SEQUENCE,
        make_vocab_size_divisible_by=64,
        transformer_layer_spec=transformer_engine_spec if transformer_engine else layer_spec,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        gradient_accumulation_fusion=False,
        persist_layer_norm=False,
        apply_rope_fusion=False,
        deallocate_pipeline_outputs=False,
    )
    return llm.GPTModel(config, tokenizer=Bytes())


def main() -> None:
    """Pre-train, from the last checkpoint in the folder where there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("text")
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--wait-after", type=int)
    parser.add_argument("--precision", choices=("bf16_mixed", "bf16_with_fp8_mixed"))
    args = parser.parse_args()
    folder = args.folder
    data = NCADataModule(
        [ENTRY, args.text],
        seq_length=SEQUENCE,
        micro_batch_size=4,
        global_batch_size=BATCH,
        num_workers=0,
        pin_memory=False,
        tokenizer=Bytes(),
        split="90,5,5",
        index_mapping_dir=f"{folder}/cache",
    )
    precisions = {"bf16_mixed": bf16_mixed, "bf16_with_fp8_mixed": bf16_with_fp8_mixed}
    plugins = fiddle.build(precisions[args.precision]()) if args.precision else None
    trainer = nl.Trainer(
        accelerator="gpu",
        devices=1,
        num_nodes=int(os.environ.get("SLURM_NNODES", 1)),
        max_steps=STEPS,
        val_check_interval=5,
        # Transformer Engine takes what it sees in validation into its histories, which a resumed run has not seen.
        limit_val_batches=0 if args.precision else 1,
        limit_test_batches=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        strategy=nl.MegatronStrategy(ckpt_async_save=False, ddp=DistributedDataParallelConfig()),
        use_distributed_sampler=False,
        callbacks=[PrintLosses(args.die_after, args.wait_after), PreemptionCallback(signal.SIGURG)],
        plugins=plugins,
        enable_progress_bar=False,
        logger=False,
    )
    precision = (
        {"bf16": True, "params_dtype": torch.bfloat16} if args.precision else {"bf16": False, "params_dtype": torch.float32}
    )
    adam = OptimizerConfig(optimizer="adam", lr=1e-3, use_distributed_optimizer=False, **precision)
    schedule = CosineAnnealingScheduler(max_steps=STEPS, warmup_steps=2, constant_steps=0, min_lr=1e-4)
    keep = nl.ModelCheckpoint(
        every_n_train_steps=5, save_last=True, save_top_k=-1, save_context_on_train_end=False, filename="{step}"
    )
    llm.pretrain(
        model(bool(args.precision)),
        data,
        trainer,
        log=nl.NeMoLogger(log_dir=folder, name="tiny", ckpt=keep, use_datetime_version=False),
        resume=nl.AutoResume(resume_if_exists=True, resume_ignore_no_checkpoint=True),
        optim=MegatronOptimizerModule(adam, schedule),
    )


if __name__ == "__main__":
    main()
