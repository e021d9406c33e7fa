"""NeMo 2: which of Lightning's and NeMo's moments is which call of the run.

attach                      attach, validate, restore early; called by the data module's setup
load_state_dict             keeps the record
restore                     restore, now that the step is known; called by the data module's train_dataloader
on_train_start              NeMo's learning rate, see step_learning_rate
on_train_batch_start        before_step, the scalars
on_megatron_microbatch_end  observe
on_validation_end           evaluate
state_dict                  state_dict
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as lightning
import torch

from megatron_nca.checkpoints.recorded import record_of_nemo
from megatron_nca.frameworks.nemo_data import STACK, blends_of
from megatron_nca.interfaces.core import ModelChunk
from megatron_nca.interfaces.nemo import DataModule, LightningModule, MegatronStep, Trainer
from megatron_nca.training import step_learning_rate
from megatron_nca.training.options import Options
from megatron_nca.training.record import CALLBACK_RECORD, Record, record_of_callback
from megatron_nca.training.run import CurriculumRun, print_on_rank_0
from megatron_nca.training.run_info import RunInfo


class NCACallback(lightning.Callback):
    """Lightning's and NeMo's moments of a run.

    Args:
        run: What it feeds.
        options: The user's.
    """

    stack = STACK

    def __init__(self, run: CurriculumRun, options: Options) -> None:
        self.options = options
        self.run = run
        self._data: DataModule | None = None
        self._is_training = False
        self._loaded: object = None

    def attach(self, data: DataModule) -> None:
        """Take the data module, before it builds its datasets."""
        self._data, self._is_training = data, False
        self.run.attach(self)
        self.run.validate(self.options)
        self._restore_early(getattr(data.trainer, "ckpt_path", None))

    def _restore_early(self, checkpoint: str | Path | None) -> None:
        """Restore before the datasets are built, where NeMo's resume has named the checkpoint and its record tells enough."""
        state = record_of_nemo(checkpoint, self.state_key) if checkpoint else None
        record = None if state is None else Record.from_state_dict(state)
        if record is not None and record.history is not None and record.consumed:
            self.run.restore(state, record.consumed)

    def info(self) -> RunInfo:
        """Return what data module and trainer tell; a checkpoint is read later, so positions count from the start."""
        assert self._data is not None
        data, trainer = self._data, self._data.trainer
        batches = trainer.limit_val_batches
        return RunInfo(
            seed=data.seed,
            consumed_samples=self._consumed(trainer) if self._is_training else 0,
            iteration=trainer.global_step if self._is_training else 0,
            train_iterations=trainer.max_steps,
            loader=getattr(data, "dataloader_type", None),
            blends=tuple(blends_of(data)),
            sequence_length=data.seq_length,
            global_batch_size=data.data_sampler.global_batch_size,
            micro_batch_size=data.data_sampler.micro_batch_size,
            counts_from_start=True,
            eval_batches=int(batches) if isinstance(batches, int) or batches == 0 else None,
        )

    def report(self, line: str) -> None:
        """Print on rank 0."""
        print_on_rank_0(line)

    def state_dict(self) -> dict[str, object]:
        """Return the record that travels in every checkpoint."""
        record = None if self._data is None else self.run.state_dict(self._consumed(self._data.trainer))
        return {} if record is None else {CALLBACK_RECORD: record}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Keep a checkpoint's record until it is known how far the run is."""
        self._loaded = record_of_callback(state_dict)

    def restore(self) -> None:
        """Hand the record over, once; called by the data module when it is known how far the run is."""
        assert self._data is not None
        trainer = self._data.trainer
        if trainer.global_step > 0 and not self._is_training:
            self._is_training = True
            self.run.restore(self._loaded, self._consumed(trainer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the learning rate its two schedules; steps of earlier starts may have had another batch."""
        self._is_training = True
        plan = self.run.plan
        if plan is None or plan.switch is None or self.options.lr_at_switch != "restart":
            return
        ahead = plan.batches.batches_until(plan.switch) - plan.batches.batches_until(self._consumed(trainer))
        for config in trainer.lr_scheduler_configs:
            step_learning_rate.install(config.scheduler, trainer.global_step + ahead, self.options, trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Call the run before a step; the learning rate is NeMo's scheduler's, which has both schedules already."""
        optimizers = [getattr(optimizer, "mcore_optimizer", optimizer) for optimizer in trainer.optimizers]
        scalars = self.run.before_step(self._consumed(trainer), _chunks(trainer), optimizers[0])
        for name, value in scalars.items():
            pl_module.log(name, value, batch_size=1)

    def on_megatron_microbatch_end(
        self, step: MegatronStep, batch: object, forward_callback: object, output: torch.Tensor
    ) -> None:
        """Show the losses of a micro-batch of training."""
        if not step.forward_only and isinstance(batch, dict) and batch.get("loss_mask") is not None:
            self.run.observe(output, batch["loss_mask"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Log NCA's and text's losses where a step mixed them."""
        if trainer.global_step % max(trainer.log_every_n_steps, 1) == 0:
            for name, value in self.run.report_losses(trainer.global_step).items():
                pl_module.log(name, value, batch_size=1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate NCA after a validation of text, where that was asked for."""
        if trainer.sanity_checking:
            return
        scalars = self.run.evaluate(_chunks(trainer), trainer.global_step)
        for logger in trainer.loggers if scalars else ():
            logger.log_metrics(scalars, step=trainer.global_step)

    def _consumed(self, trainer: Trainer) -> int:
        assert self._data is not None
        sampler = self._data.data_sampler
        return int(sampler.compute_consumed_samples(trainer.global_step - sampler.init_global_step))


def _chunks(trainer: Trainer) -> list[ModelChunk]:
    return list(trainer.strategy.megatron_parallel)
