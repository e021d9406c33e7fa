"""What is needed of NeMo 2 and of Lightning: trainer, data module, recipe, learning-rate scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from megatron_nca.interfaces.core import MegatronOptimizer, ModelChunk


class ClusterEnvironment(Protocol):
    """``lightning.fabric.plugins.environments.ClusterEnvironment``."""

    def global_rank(self) -> int:
        """Return this rank."""


class Strategy(Protocol):
    """``nemo.lightning.MegatronStrategy``.

    Attributes:
        cluster_environment: Tells the rank.
        megatron_parallel: ``nemo.lightning.megatron_parallel.MegatronParallel``: the model chunks of this rank.
    """

    cluster_environment: ClusterEnvironment
    megatron_parallel: Iterable[ModelChunk]


class Logger(Protocol):
    """``lightning.pytorch.loggers.Logger``."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Write values by name."""


class StepScheduler(Protocol):
    """A scheduler of ``nemo.core.optim.lr_scheduler``, which counts steps; torch's ``LRScheduler`` below it.

    Attributes:
        optimizer: The optimizer whose groups get the rates.
        last_epoch: Where it stands, in steps.
        base_lrs: Peak rates of the groups.
        min_lr: Rate at the end of the decay.
        max_steps: Where the decay ends.
        warmup_steps: Length of the warm-up.
        constant_steps: Steps at the end of the decay, or None.
        decay_steps: Steps between the two.
    """

    optimizer: MegatronOptimizer
    last_epoch: int
    base_lrs: list[float]
    min_lr: float
    max_steps: int
    warmup_steps: int
    constant_steps: int | None
    decay_steps: int
    _last_lr: list[float]
    _get_lr_called_within_step: bool

    def get_lr(self) -> list[float]:
        """Return the rates of the groups at ``last_epoch``."""


class SchedulerConfig(Protocol):
    """``lightning.pytorch.utilities.types.LRSchedulerConfig``.

    Attributes:
        scheduler: The scheduler.
    """

    scheduler: StepScheduler


class Trainer(Protocol):
    """``lightning.pytorch.Trainer``.

    Attributes:
        global_step: Steps so far.
        max_steps: Length of the run in steps.
        limit_val_batches: Batches of a validation, or a share of them.
        log_every_n_steps: Steps between two scalars.
        sanity_checking: Whether a validation is the one before training.
        loggers: Where scalars go.
        lr_scheduler_configs: One for each scheduler.
        optimizers: Megatron-Core's, or NeMo's ``McoreDistributedOptimizer`` around it.
        strategy: Holds model and ranks.
    """

    global_step: int
    max_steps: int
    limit_val_batches: float | None
    log_every_n_steps: int
    sanity_checking: bool
    loggers: Sequence[Logger]
    lr_scheduler_configs: Sequence[SchedulerConfig]
    optimizers: Sequence[MegatronOptimizer]
    strategy: Strategy


class LightningModule(Protocol):
    """``lightning.pytorch.LightningModule``."""

    def log(self, name: str, value: float, batch_size: int) -> None:
        """Write a value."""


class MegatronStep(Protocol):
    """``nemo.lightning.megatron_parallel.MegatronStep``, which the events of a micro-batch bring.

    Attributes:
        forward_only: Whether it is a validation's.
    """

    forward_only: bool


class DataSampler(Protocol):
    """``nemo.lightning.pytorch.plugins.data_sampler.MegatronDataSampler``.

    Attributes:
        global_batch_size: Samples of a step.
        micro_batch_size: Samples of a forward pass.
        rampup_batch_size: Start, increment and samples of growing batches, or None.
        init_consumed_samples: Samples of the steps before this start.
        init_global_step: Steps before this start.
    """

    global_batch_size: int
    micro_batch_size: int
    rampup_batch_size: Sequence[int] | None
    init_consumed_samples: int
    init_global_step: int

    def compute_consumed_samples(self, steps_since_resume: int = 0) -> int:
        """Return the samples of all steps so far."""

    def setup(self, global_rank: int) -> None:
        """Set Megatron-Core's microbatch calculator up."""


class DataModule(Protocol):
    """``nemo.collections.llm.PreTrainingDataModule``.

    Attributes:
        trainer: The trainer that it is attached to.
        data_sampler: Counts samples.
        seed: Seed of the samples.
        seq_length: Tokens of a sample.
        build_kwargs: Megatron's ``blend`` or ``blend_per_split``, as made of its paths.
    """

    trainer: Trainer
    data_sampler: DataSampler
    seed: int
    seq_length: int
    build_kwargs: Mapping[str, Any]


class DataConfig(Protocol):
    """``nemo_run.Config`` of a data module.

    Attributes:
        __arguments__: Its arguments by name, as fiddle keeps them.
        __fn_or_cls__: What it configures.
    """

    __arguments__: Mapping[str, object]
    __fn_or_cls__: Callable[..., object]


class Recipe(Protocol):
    """``nemo_run.Partial`` of a pre-training.

    Attributes:
        data: What configures its data module.
    """

    data: DataConfig
