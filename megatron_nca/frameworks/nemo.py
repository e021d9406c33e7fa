"""NeMo 2: which of Lightning's moments is which call of the run, and the data module that brings them along.

    NCADataModule.setup         attach, validate
    Callback.load_state_dict    restore; NeMo reads a checkpoint after its datasets are built
    on_train_start              NeMo's learning rate, see nemo_learning_rate
    on_train_batch_start        before_step, the scalars
    on_megatron_microbatch_end  observe
    on_validation_end           evaluate
    Callback.state_dict         state_dict

Replacing a recipe's ``data``, as ``with_nca`` does, is all an override has to do. NeMo is imported when this module is.
"""

from __future__ import annotations

import inspect
from typing import Any

import megatron_nca
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.entry import is_nca
from megatron_nca.errors import CurriculumError, EnvironmentMismatchError
from megatron_nca.frameworks import nemo_learning_rate, seams
from megatron_nca.stacks import NEMO
from megatron_nca.training.facts import RunFacts
from megatron_nca.training.options import PREFIX, Options, parameters
from megatron_nca.training.run import CurriculumRun, print_on_rank_0

try:
    import lightning.pytorch as lightning
    from nemo.collections.llm.gpt.data import pre_training
except ImportError as error:
    raise EnvironmentMismatchError(
        f"megatron-nca's NeMo adapter needs nemo-toolkit 2.x with nemo.collections.llm (pip install megatron-nca[nemo]), and "
        f"importing it failed: {error}. NeMo 3.0 has no llm collection: its recipes went to Megatron-Bridge, so use "
        "megatron_nca.frameworks.megatron_bridge there"
    ) from error

STACK = NEMO

RECORD = "record"
OLDER_RECORD = "note"
"""Keys of the callback's state: today's, and that of 0.1.0."""


def register() -> CurriculumRun:
    """Let ``PreTrainingDataModule`` take ``nca:`` entries; a second call changes nothing."""
    run = megatron_nca.register()
    wrappers = {
        "validate_dataset_asset_accessibility": _let_entries_pass,
        "PreTrainingDataModule.build": _with_boundaries,
    }
    seams.install(STACK.name, wrappers, run)
    return run


def _let_entries_pass(validate: Any) -> Any:
    # It calls itself by its global name for every member of a list, so that replacing the name reaches each entry.
    def validate_paths(paths: Any) -> None:
        if not (isinstance(paths, str) and is_nca(paths)):
            validate(paths)

    return validate_paths


def _with_boundaries(build: Any) -> Any:
    """Set Megatron's microbatch calculator up before the datasets are built, since NeMo does so after it."""

    def build_with_boundaries(self: Any, *args: Any, **keywords: Any) -> Any:
        if getattr(self, "trainer", None) is None or not _has_entries(self):
            return build(self, *args, **keywords)
        if self.data_sampler.rampup_batch_size is not None:
            raise CurriculumError(
                f"rampup_batch_size={self.data_sampler.rampup_batch_size}: NeMo counts a batch too many after each resume of a "
                "ramp, so no phase could end at its place; leave rampup_batch_size out with nca: entries"
            )
        from megatron.core import num_microbatches_calculator as calculator

        # NeMo's own call, later, accepts a calculator of the same sizes.
        if calculator._GLOBAL_NUM_MICROBATCHES_CALCULATOR is None:
            self.data_sampler.setup(self.trainer.strategy.cluster_environment.global_rank())
        return build(self, *args, **keywords)

    return build_with_boundaries


def _blends(data: Any) -> list[Any]:
    per_split = data.build_kwargs.get("blend_per_split")
    return list(per_split) if per_split else [data.build_kwargs.get("blend")] * 3


def _has_entries(data: Any) -> bool:
    return any(is_nca(prefix) for blend in _blends(data) if blend for prefix in blend[0])


class NCADataModule(pre_training.PreTrainingDataModule):
    """NeMo's ``PreTrainingDataModule`` whose ``paths`` may hold ``nca:`` entries, and which brings the transition along.

    Args:
        paths: As PreTrainingDataModule's.
        **options: PreTrainingDataModule's other arguments, and the rows of ``megatron_nca.training.options.OPTIONS`` with
            ``nca_`` before their names.

    Raises:
        NCAError: An option's value is not usable.
    """

    def __init__(self, paths: list[str] | dict[str, list[str]], **options: Any) -> None:
        run = register()
        ours = {name[len(PREFIX) :]: options.pop(name) for name in list(options) if name.startswith(PREFIX)}
        self.callback = NCACallback(run, Options.read(ours, STACK))
        super().__init__(paths, **options)

    def setup(self, stage: str = "") -> None:
        """Add the callback to the trainer, then build the datasets."""
        if self.callback not in self.trainer.callbacks:
            self.trainer.callbacks.append(self.callback)
        self.callback.attach(self)
        super().setup(stage)


def _signature() -> inspect.Signature:
    """Name every argument, as NeMo's checkpoints and NeMo-Run's command line read them off the signature."""
    theirs = list(inspect.signature(pre_training.PreTrainingDataModule.__init__).parameters.values())
    at_front = [item for item in theirs if item.name in ("self", "paths")]
    return inspect.Signature(at_front + parameters(STACK) + [item for item in theirs if item not in at_front])


NCADataModule.__init__.__signature__ = _signature()  # type: ignore[attr-defined]


class NCACallback(lightning.Callback):
    """Lightning's and NeMo's moments of a run.

    Args:
        run: What it feeds.
        options: The user's.
    """

    stack = STACK

    def __init__(self, run: CurriculumRun, options: Options) -> None:
        self.options = options
        self._run = run
        self._data: Any = None
        self._loaded: Any = None

    def attach(self, data: Any) -> None:
        """Take the data module, before it builds its datasets."""
        self._data = data
        self._run.attach(self)
        self._run.validate(self.options)

    def facts(self) -> RunFacts:
        """Return what data module and trainer tell; a checkpoint is read later, so positions count from the start."""
        data, trainer = self._data, self._data.trainer
        batches = trainer.limit_val_batches
        return RunFacts(
            seed=data.seed,
            loader=getattr(data, "dataloader_type", None),
            blends=tuple(_blends(data)),
            global_batch_size=data.data_sampler.global_batch_size,
            micro_batch_size=data.data_sampler.micro_batch_size,
            eval_batches=int(batches) if isinstance(batches, int) or batches == 0 else None,
        )

    def report(self, line: str) -> None:
        """Print on rank 0."""
        print_on_rank_0(line)

    def state_dict(self) -> dict[str, Any]:
        """Return the record that travels in every checkpoint."""
        record = None if self._data is None else self._run.state_dict(self._consumed(self._data.trainer))
        return {} if record is None else {RECORD: record}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's record until it is known how far the run is."""
        self._loaded = state_dict.get(RECORD, state_dict.get(OLDER_RECORD))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore, and give the learning rate its two schedules."""
        if trainer.global_step > 0:
            self._run.restore(self._loaded, self._consumed(trainer))
        plan = self._run.plan
        if plan is None or plan.switch is None or self.options.lr_at_switch != "restart":
            return
        switch = BatchBoundaries.from_megatron().batches_until(plan.switch)
        for config in trainer.lr_scheduler_configs:
            nemo_learning_rate.install(config.scheduler, switch, self.options, trainer.global_step)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Call the run before a step; the learning rate is NeMo's scheduler's, which has both schedules already."""
        optimizers = [getattr(optimizer, "mcore_optimizer", optimizer) for optimizer in trainer.optimizers]
        scalars = self._run.before_step(self._consumed(trainer), _chunks(trainer), optimizers[0])
        for name, value in scalars.items():
            pl_module.log(name, value, batch_size=1)

    def on_megatron_microbatch_end(self, step: Any, batch: Any, forward_callback: Any, output: Any) -> None:
        """Show the losses of a micro-batch of training."""
        if not step.forward_only and isinstance(batch, dict) and batch.get("loss_mask") is not None:
            self._run.observe(output, batch["loss_mask"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log NCA's and text's losses where a step mixed them."""
        if trainer.global_step % max(trainer.log_every_n_steps, 1) == 0:
            for name, value in self._run.report_losses(trainer.global_step).items():
                pl_module.log(name, value, batch_size=1)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluate NCA after a validation of text, where that was asked for."""
        if trainer.sanity_checking:
            return
        scalars = self._run.evaluate(_chunks(trainer), trainer.global_step)
        for logger in trainer.loggers if scalars else ():
            logger.log_metrics(scalars, step=trainer.global_step)

    def _consumed(self, trainer: Any) -> int:
        sampler = self._data.data_sampler
        return int(sampler.compute_consumed_samples(trainer.global_step - sampler.init_global_step))


def _chunks(trainer: Any) -> list[Any]:
    return list(trainer.strategy.megatron_parallel)


def __getattr__(name: str) -> Any:
    # NeMo-Run is asked for by nothing but a recipe's override.
    if name == "with_nca":
        from megatron_nca.frameworks.nemo_recipe import with_nca

        return with_nca
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
