"""Megatron-Bridge."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import megatron_nca
import megatron_nca.rehearsal
from megatron_nca import patching
from megatron_nca.stacks import BRIDGE
from tests.contract.drivers.base import Driver, read_blend
from tests.contract.drivers.stand_ins import provide
from tests.contract.machine import MICRO_BATCH, SEQUENCE, Checkpoint, Launch, Machine, Writer


class Bridge(Driver):
    """Megatron-Bridge: overrides, callbacks, setup, checkpoint, datasets, steps between callbacks."""

    stack = BRIDGE

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        # Those that wait for an import of Bridge would wrap what is replaced here.
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, patching._Finder)]
        provide("megatron.bridge")
        self.light("megatron.bridge.training.setup", "setup")
        self.light("megatron.bridge.data.loaders", "setup_data_iterators")
        self.light("megatron.bridge.training.train", "train_step")
        self.light("megatron.bridge.training.utils.omegaconf_utils", "parse_hydra_overrides")
        self.callbacks = importlib.import_module("megatron.bridge.training.callbacks")
        self.state = importlib.import_module("megatron.bridge.training.state")
        megatron_nca.register()
        self.module = {
            "setup": importlib.import_module("megatron.bridge.training.setup"),
            "loaders": importlib.import_module("megatron.bridge.data.loaders"),
            "train": importlib.import_module("megatron.bridge.training.train"),
            "overrides": importlib.import_module("megatron.bridge.training.utils.omegaconf_utils"),
        }

    def config(self, launch: Launch) -> SimpleNamespace:
        """Return as much of Bridge's config as is looked at."""
        own = {"blend": read_blend(launch.path), "blend_per_split": None}
        if launch.valid is not None:
            splits = (launch.path, launch.valid, launch.valid)
            own = {"blend": None, "blend_per_split": [read_blend(path) for path in splits]}
        train = SimpleNamespace(
            train_iters=launch.samples // launch.batch,
            train_samples=launch.samples if launch.in_samples else None,
            global_batch_size=launch.batch, micro_batch_size=MICRO_BATCH, eval_iters=1,
        )  # fmt: skip
        return SimpleNamespace(
            # The seed of the data is the dataset's own, whatever the model's is.
            rng=SimpleNamespace(seed=77), train=train, scheduler=SimpleNamespace(lr_warmup_fraction=None),
            dataset=SimpleNamespace(dataloader_type=launch.loader, seq_length=SEQUENCE, **own),
            logger=SimpleNamespace(tensorboard_log_interval=1, log_interval=1),
            model=SimpleNamespace(vocab_size=12_000, should_pad_vocab=True, make_vocab_size_divisible_by=64,
                                  tensor_model_parallel_size=1),
        )  # fmt: skip

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """Overrides, callbacks, setup, checkpoint, datasets."""
        words = [BRIDGE.option(name, value) for name, value in launch.options.items()]
        self.module["overrides"].parse_hydra_overrides(None, words)
        self.manager = self.callbacks.normalize_callbacks(None)
        self.train_state = self.state.TrainState()
        self.global_state = SimpleNamespace(
            cfg=self.config(launch), train_state=self.train_state, wandb_logger=None,
            tensorboard_logger=Writer(machine.outcome.scalars),
        )  # fmt: skip
        self.module["setup"].setup(self.global_state, None)
        if checkpoint is not None:
            self.train_state.load_state_dict(checkpoint.stacks_own)
            machine.load(checkpoint, machine.scheduler, load_optimizer)
        self.handlers["setup_data_iterators"] = lambda *_: self.build(launch, machine)
        self.module["loaders"].setup_data_iterators(self.global_state.cfg, self.train_state, 1, None, None)

    def step(self, launch: Launch, machine: Machine) -> None:
        """Bridge's train_step between its callbacks, and a validation after it."""
        machine.ask_for_the_batch()
        self.train_state.step, self.train_state.consumed_train_samples = machine.step, machine.consumed
        context = SimpleNamespace(
            state=self.global_state, model=[machine.model], optimizer=machine.optimizer, scheduler=machine.scheduler
        )

        def train_step(forward_step: Any, *_: Any) -> None:
            machine.train(forward_step)
            machine.scheduler.step(machine.batch)

        self.handlers["train_step"] = train_step
        for event in ("on_train_step_start", None, "on_train_step_end"):
            if event is None:
                self.module["train"].train_step(machine.forward_steps(), None, None, None, None, self.global_state)
                continue
            for moment in self.manager.list_callbacks(event):
                moment(context)
        self.train_state.step += 1
        for moment in self.manager.list_callbacks("on_eval_end"):
            moment(context)

    def save(self, machine: Machine) -> Checkpoint:
        """Bridge keeps its train state."""
        self.train_state.step, self.train_state.consumed_train_samples = machine.step, machine.consumed
        return Checkpoint(machine.step, machine.consumed, machine.states(machine.scheduler), self.train_state.state_dict())
