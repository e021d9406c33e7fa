"""What is needed of Megatron-Core's objects, which every stack passes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

LossFunction = Callable[..., object]
"""Takes the losses of a micro-batch's labels; a pre-training script binds the loss mask to it."""

ForwardStep = Callable[..., "tuple[torch.Tensor, LossFunction]"]
"""A pre-training script's: takes the data iterator and a model chunk, returns the output and its loss function."""

ParamGroup = dict[str, Any]
"""A group of ``torch.optim.Optimizer.param_groups``: the parameters, and whatever the optimizer and Megatron keep with them."""


class ModelChunk(Protocol):
    """A part of the model on this rank, as ``megatron.training.training.get_model`` wraps it for data parallelism.

    Attributes:
        training: Whether it is in training mode; ``torch.nn.Module``'s.
    """

    training: bool

    def children(self) -> Iterator[torch.nn.Module]:
        """Yield the modules right under the chunk; ``torch.nn.Module``'s."""

    def modules(self) -> Iterator[torch.nn.Module]:
        """Yield the chunk and all modules under it; ``torch.nn.Module``'s."""

    def named_modules(self) -> Iterator[tuple[str, torch.nn.Module]]:
        """Yield them with their paths; ``torch.nn.Module``'s."""

    def train(self, mode: bool = True) -> object:
        """Go into training mode, or out of it; ``torch.nn.Module``'s."""

    def eval(self) -> object:
        """Go out of training mode; ``torch.nn.Module``'s."""


Model = Sequence[ModelChunk]
"""The model chunks of this rank, several under interleaved pipeline stages."""


class MegatronOptimizer(Protocol):
    """``megatron.core.optimizer.MegatronOptimizer``: mixed-precision, distributed or chained around torch's own."""

    @property
    def param_groups(self) -> list[ParamGroup]:
        """Groups of the optimizer that it wraps, or of all that it chains."""


class OptimizerParamScheduler(Protocol):
    """``megatron.core.optimizer_param_scheduler.OptimizerParamScheduler``, whose steps are samples.

    Attributes:
        optimizer: The optimizer whose groups get the rates.
        num_steps: Where it stands.
        init_lr: Rate at the beginning of the warm-up.
        max_lr: Peak rate.
        min_lr: Rate at the end of the decay.
        lr_warmup_steps: Length of the warm-up; a fraction where it was given as a share of the decay.
        lr_decay_steps: Where the decay ends.
        lr_decay_style: Its shape.
        wsd_decay_steps: Length of the final decay under ``WSD``, or None.
        lr_wsd_decay_style: Its shape, or None.
        start_wd: Weight decay at the beginning.
        end_wd: Weight decay at the end.
        wd_incr_steps: Where that is.
        wd_incr_style: How it gets there.
        get_lr: Rate of a parameter group at ``num_steps``.
        get_wd: Weight decay there; before 0.16 it takes no group.
    """

    optimizer: MegatronOptimizer
    num_steps: int
    init_lr: float
    max_lr: float
    min_lr: float
    lr_warmup_steps: float
    lr_decay_steps: int
    lr_decay_style: str
    wsd_decay_steps: int | None
    lr_wsd_decay_style: str | None
    start_wd: float
    end_wd: float
    wd_incr_steps: int
    wd_incr_style: str
    get_lr: Callable[..., float]
    get_wd: Callable[..., float]

    def step(self, increment: int) -> None:
        """Go on by so many samples, and set the rates of the optimizer's groups."""


class MicrobatchCalculator(Protocol):
    """``megatron.core.num_microbatches_calculator.NumMicroBatchesCalculator``: constant, growing or stepwise."""

    def get(self) -> int:
        """Return the micro-batches of a step on each rank."""

    def get_current_running_global_batch_size(self) -> int:
        """Return the samples of a step, as the ranks can share them."""

    def update(self, consumed_samples: int, consistency_check: bool, verbose: bool = False) -> None:
        """Bring it to a position."""


class DatasetConfig(Protocol):
    """``megatron.core.datasets.gpt_dataset.GPTDatasetConfig``, as the dataset builder holds it.

    Attributes:
        blend: The data of all splits, (prefixes, weights), or None.
        blend_per_split: The data of each split, or None.
        sequence_length: Tokens of a sample.
        random_seed: Seed of the samples.
        tokenizer: Megatron's tokenizer.
    """

    blend: tuple[Sequence[str], Sequence[float] | None] | None
    blend_per_split: Sequence[tuple[Sequence[str], Sequence[float] | None] | None] | None
    sequence_length: int
    random_seed: int
    tokenizer: object


class SummaryWriter(Protocol):
    """``torch.utils.tensorboard.SummaryWriter``."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Write a value."""


class Wandb(Protocol):
    """The module ``wandb``, or a run of it."""

    def log(self, data: Mapping[str, float], step: int) -> None:
        """Write values by name."""
