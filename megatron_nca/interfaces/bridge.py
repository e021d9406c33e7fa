"""What is needed of Megatron-Bridge's configs, state and callbacks; all are of ``megatron.bridge.training``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from megatron_nca.interfaces.core import MegatronOptimizer, Model, OptimizerParamScheduler, SummaryWriter, Wandb


class DatasetConfig(Protocol):
    """``config.GPTDatasetConfig``; a dataset of another kind has no ``blend``.

    Attributes:
        blend: The data of all splits, (prefixes, weights), or None for mock data.
        blend_per_split: The data of each split, or None.
    """

    blend: tuple[list[str], list[float] | None] | None
    blend_per_split: list[tuple[list[str], list[float] | None] | None] | None


class ModelProvider(Protocol):
    """``GPTModelProvider`` and its like, as far as it has a vocabulary.

    Attributes:
        make_vocab_size_divisible_by: What a rank's rows of the embedding are padded to.
        tensor_model_parallel_size: Ranks that share the embedding.
    """

    make_vocab_size_divisible_by: int
    tensor_model_parallel_size: int


class EvaluationConfig(Protocol):
    """``config.ValidationConfig``; in older versions its fields are ``TrainingConfig``'s.

    Attributes:
        eval_iters: Global batches of a validation; a list with several sets, or None.
    """

    eval_iters: int | list[int] | None


class TrainingConfig(EvaluationConfig, Protocol):
    """``config.TrainingConfig``.

    Attributes:
        global_batch_size: Samples of a step.
        micro_batch_size: Samples of a forward pass.
        train_samples: Length of the run in samples, or None.
        train_iters: Its length in steps.
    """

    global_batch_size: int
    micro_batch_size: int
    train_samples: int | None
    train_iters: int


class SchedulerConfig(Protocol):
    """``config.SchedulerConfig``, the steps of which are samples once it is validated.

    Attributes:
        lr_decay_steps: Where the decay ends.
        lr_warmup_fraction: The warm-up as a share of the decay, or None.
        lr_warmup_steps: Length of the warm-up.
        wd_incr_steps: Where the weight decay has grown.
    """

    lr_decay_steps: int
    lr_warmup_fraction: float | None
    lr_warmup_steps: float
    wd_incr_steps: int


class RngConfig(Protocol):
    """``config.RNGConfig``.

    Attributes:
        seed: Seed of the run.
    """

    seed: int


class LoggerConfig(Protocol):
    """``config.LoggerConfig``.

    Attributes:
        log_interval: Steps between two lines of the log.
        tensorboard_log_interval: Steps between two scalars.
    """

    log_interval: int
    tensorboard_log_interval: int


class ConfigContainer(Protocol):
    """``config.ConfigContainer``.

    Attributes:
        dataset: The data.
        model: What builds the model.
        train: Batches and length.
        scheduler: The learning rate's.
        rng: The seed's.
        logger: The log's.
    """

    dataset: DatasetConfig
    model: ModelProvider
    train: TrainingConfig
    scheduler: SchedulerConfig
    rng: RngConfig
    logger: LoggerConfig


class TrainState(Protocol):
    """``state.TrainState``, which every checkpoint holds.

    Attributes:
        step: Steps so far.
        consumed_train_samples: Samples of all steps so far.
    """

    step: int
    consumed_train_samples: int


class GlobalState(Protocol):
    """``state.GlobalState``.

    Attributes:
        cfg: The run's config.
        train_state: How far it is.
        tensorboard_logger: The writer, on one rank; None elsewhere.
        wandb_logger: Weights & Biases, on one rank; None elsewhere.
    """

    cfg: ConfigContainer
    train_state: TrainState
    tensorboard_logger: SummaryWriter | None
    wandb_logger: Wandb | None


class CallbackContext(Protocol):
    """``callbacks.CallbackContext``, which every event brings.

    Attributes:
        state: The run's.
        model: Model chunks of this rank.
        optimizer: Megatron-Core's, at the events of a training step.
        scheduler: Megatron-Core's, at the same.
    """

    state: GlobalState
    model: Model
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler


class CallbackManager(Protocol):
    """``callbacks.CallbackManager``."""

    def list_callbacks(self, event_name: str, /) -> list[Callable[[CallbackContext], None]]:
        """Return what an event calls."""

    def register(self, event_name: str, fn: Callable[[CallbackContext], None], /) -> None:
        """Let an event call one more."""
