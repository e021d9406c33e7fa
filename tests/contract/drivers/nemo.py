"""NeMo."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from megatron.core import num_microbatches_calculator as calculator

from megatron_nca import patching
from megatron_nca.stacks import NEMO
from tests.contract.drivers.base import Driver
from tests.contract.drivers.stand_ins import is_real, provide
from tests.contract.machine import MICRO_BATCH, SEQUENCE, Checkpoint, Launch, Machine, Writer


class NeMo(Driver):
    """NeMo: the data module's setup builds the datasets, then the checkpoint is read, then Lightning's moments."""

    stack = NEMO
    reads_checkpoint_first = False
    names_checkpoint = True
    """Whether NeMo's resume says which checkpoint there is; Lightning's fit(ckpt_path=...) does not."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        provide("lightning")
        provide("nemo")
        # NeMo's own counts nothing outside of its strategy.
        sampler = importlib.import_module("nemo.lightning.pytorch.plugins.data_sampler").MegatronDataSampler
        if not patching.is_patched(sampler, "compute_consumed_samples"):
            sampler.compute_consumed_samples = lambda self, steps=0: (
                self.init_consumed_samples + steps * self.micro_batch_size * calculator.get_num_microbatches()
            )
        self.nemo = importlib.import_module("megatron_nca.frameworks.nemo")
        self.schedulers = importlib.import_module("nemo.core.optim.lr_scheduler")

    def on_disk(self, checkpoint: Checkpoint | None) -> Path | None:
        """Write a checkpoint's common part where NeMo's resume finds it."""
        if checkpoint is None or not self.names_checkpoint:
            return None
        weights = self.cache / f"step={checkpoint.step}" / "weights"
        weights.mkdir(parents=True, exist_ok=True)
        torch.save({"callbacks": {"NCACallback": checkpoint.stacks_own}}, weights / "common.pt")
        return weights.parent

    def scheduler(self, machine: Machine) -> Any:
        """Return NeMo's, of steps."""
        return self.annealing

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """Datasets, checkpoint, the start of training."""
        paths: Any = list(launch.path)
        if launch.valid is not None:
            paths = {"train": paths, "validation": list(launch.valid), "test": list(launch.valid)}
        self.data = self.nemo.NCADataModule(
            paths, seq_length=SEQUENCE, tokenizer=launch.tokenizer, micro_batch_size=MICRO_BATCH,
            global_batch_size=launch.batch, seed=launch.seed, index_mapping_dir=str(self.cache),
            dataloader_type=launch.loader, **{f"nca_{name}": value for name, value in launch.options.items()},
        )  # fmt: skip
        # Lightning logs to its loggers through the module, on rank 0.
        log = Writer(machine.outcome.scalars)
        self.module = SimpleNamespace(log=lambda name, value, **_: log.add_scalar(name, value, machine.step + 1))
        self.annealing = self.schedulers.CosineAnnealing(
            machine.optimizer.optimizer, max_steps=launch.steps, warmup_steps=2, min_lr=1e-5
        )
        self.trainer = SimpleNamespace(
            ckpt_path=self.on_disk(checkpoint),
            max_steps=launch.steps, global_step=0, callbacks=[], limit_val_batches=1, sanity_checking=False,
            log_every_n_steps=1,
            optimizers=[SimpleNamespace(mcore_optimizer=machine.optimizer)],
            lr_scheduler_configs=[SimpleNamespace(scheduler=self.annealing)],
            strategy=_strategy(
                megatron_parallel=[machine.model], cluster_environment=SimpleNamespace(global_rank=lambda: 0)
            ),
            loggers=[SimpleNamespace(log_metrics=log.add_scalars)],
            val_check_interval=5, limit_test_batches=1,
        )  # fmt: skip
        self.data.trainer = self.data.data_sampler.trainer = self.trainer
        self.data.setup()
        machine.dataset = self.data._train_ds
        [self.callback] = self.trainer.callbacks
        if checkpoint is not None:
            machine.load(checkpoint, self.annealing, load_optimizer)
            self.callback.load_state_dict(checkpoint.stacks_own)
            self.trainer.global_step = checkpoint.step
            self.data.data_sampler.init_consumed_samples = checkpoint.consumed
        self.data.train_dataloader()
        if machine.consumed >= len(machine.dataset):
            raise RuntimeError(f"no samples left to consume: {machine.consumed}, {len(machine.dataset)}")
        self.callback.on_train_start(self.trainer, self.module)

    def step(self, launch: Launch, machine: Machine) -> None:
        """A batch between Lightning's moments, its micro-batches between NeMo's, and a validation after it."""
        self.trainer.global_step = machine.step
        self.callback.on_train_batch_start(self.trainer, self.module, None, machine.step)
        forward_step = machine.forward_steps()

        def shown_forward_step() -> Any:
            losses, loss_function = forward_step()
            self.callback.on_megatron_microbatch_end(
                step=SimpleNamespace(forward_only=False), batch={"loss_mask": loss_function.args[0]}, forward_callback=None,
                output=losses,
            )  # fmt: skip
            return losses, loss_function

        machine.train(shown_forward_step)
        self.annealing.step()
        self.trainer.global_step = machine.step + 1
        self.callback.on_train_batch_end(self.trainer, self.module, None, None, machine.step)
        self.callback.on_validation_end(self.trainer, self.module)

    def save(self, machine: Machine) -> Checkpoint:
        """Lightning keeps the states of callbacks."""
        return Checkpoint(
            machine.step, machine.consumed, machine.states(self.annealing), copy.deepcopy(self.callback.state_dict())
        )


def _strategy(**attributes: Any) -> Any:
    """Return a strategy of the class that the real sampler asks for, or of none where that is a stand-in."""
    if not is_real("nemo"):
        return SimpleNamespace(**attributes)
    from nemo.lightning.pytorch.strategies import MegatronStrategy
    from nemo.utils import AppState

    AppState().data_parallel_size = 1
    strategy = object.__new__(MegatronStrategy)
    vars(strategy).update(attributes)
    return strategy
