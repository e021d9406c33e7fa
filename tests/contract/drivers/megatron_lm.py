"""Megatron-LM."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import megatron_nca
import megatron_nca.rehearsal
from megatron_nca.stacks import MEGATRON_LM
from tests.contract.drivers.base import Driver
from tests.contract.drivers.stand_ins import provide
from tests.contract.machine import MICRO_BATCH, SEQUENCE, Checkpoint, Launch, Machine, Writer


class MegatronLM(Driver):
    """Megatron-LM: arguments, checkpoint, datasets, steps."""

    stack = MEGATRON_LM

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        provide("megatron.training")
        self.light("megatron.training.arguments", "validate_args")
        for name in ("check_checkpoint_args", "save_checkpoint"):
            self.light("megatron.training.checkpointing", name)
        for name in ("train_step", "evaluate_and_print_results"):
            self.light("megatron.training.training", name)
        for name in ("get_tensorboard_writer", "get_wandb_writer"):
            self.light("megatron.training.global_vars", name)
        megatron_nca.register()
        self.module = {
            name: importlib.import_module(f"megatron.training.{name}") for name in ("arguments", "checkpointing", "training")
        }

    def args(self, launch: Launch) -> SimpleNamespace:
        """Return Megatron-LM's arguments as its parser leaves them, ours among them."""
        paths: dict[str, Any] = dict.fromkeys(("data_path", "train_data_path", "valid_data_path", "test_data_path"))
        if launch.valid is None:
            paths["data_path"] = list(launch.path)
        else:
            paths |= {f"{split}_data_path": list(launch.valid) for split in ("valid", "test")}
            paths["train_data_path"] = list(launch.path)
        return SimpleNamespace(
            **paths, **{f"nca_{name}": value for name, value in launch.options.items()}, seed=launch.seed, mock_data=False,
            data_args_path=None, per_split_data_args_path=None,
            consumed_train_samples=0, iteration=0, padded_vocab_size=12_032, dataloader_type=launch.loader,
            global_batch_size=launch.batch, micro_batch_size=MICRO_BATCH, eval_iters=1, lr_warmup_fraction=None,
            train_iters=launch.steps, train_samples=launch.samples if launch.in_samples else None,
            tensorboard_log_interval=1, log_interval=1, seq_length=SEQUENCE, lr_decay_iters=None, lr_warmup_iters=0,
            rampup_batch_size=None, step_batch_size_schedule=None,
            lr_wsd_decay_iters=None, decoupled_lr=launch.embedding_lr,
        )  # fmt: skip

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """Arguments, checkpoint, datasets."""
        self.handlers = {"get_tensorboard_writer": lambda: Writer(machine.outcome.scalars)}
        self.now = self.args(launch)
        self.module["arguments"].validate_args(self.now)
        self.module["training"].update_train_iters(self.now)
        if checkpoint is not None:
            self.module["checkpointing"].check_checkpoint_args(checkpoint.stacks_own)
            self.now.consumed_train_samples, self.now.iteration = checkpoint.consumed, checkpoint.step
            machine.load(checkpoint, machine.scheduler, load_optimizer)
        self.build(launch, machine, self.now.train_samples or self.now.train_iters * self.now.global_batch_size)

    def step(self, launch: Launch, machine: Machine) -> None:
        """Megatron-LM's train_step, and a validation after it."""
        machine.ask_for_the_batch()
        self.now.curr_iteration = machine.step
        self.now.consumed_train_samples = machine.consumed

        def train_step(forward_step: Any, *_: Any) -> None:
            machine.train(forward_step)
            machine.scheduler.step(machine.batch)

        self.handlers["train_step"] = train_step
        training = self.module["training"]
        training.train_step(machine.forward_steps(), None, [machine.model], machine.optimizer, machine.scheduler, None)
        training.evaluate_and_print_results("iteration", None, None, [machine.model], machine.step + 1)

    def save(self, machine: Machine) -> Checkpoint:
        """Megatron-LM keeps its arguments."""
        written = []
        self.now.consumed_train_samples = machine.consumed
        self.handlers["save_checkpoint"] = lambda *_: written.append(copy.deepcopy(self.now))
        self.module["checkpointing"].save_checkpoint(machine.step, None, None, None, 0)
        return Checkpoint(machine.step, machine.consumed, machine.states(machine.scheduler), written[0])
