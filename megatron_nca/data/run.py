"""What Megatron-Core's dataset builder is not told of a run, and what a run wants to know of its datasets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from megatron_nca.data.curriculum import Plan
from megatron_nca.data.history import History
from megatron_nca.stacks import Stack


@dataclass(frozen=True)
class DataInfo:
    """Facts about the run that decide its datasets, as known when they are built.

    Attributes:
        padded_vocab_size: Rows of the model's embedding, or None where the stack does not tell.
        consumed_samples: Samples of the steps before this start.
        batches_from: Consumed samples from which batches and steps are counted: this start's, or 0 where all are counted alike.
        ended_phases: Where the phases that have ended did end, which another batch size must not move.
        iterations: Steps from there on, where the run's length was given in steps; else None.
        history: What the run has planned and read so far, or None where no record tells it.
        texts: Identities of the texts that the record knows, in its data path's order.
        amends: Whether the launch is to change the run's data path.
    """

    padded_vocab_size: int | None = None
    consumed_samples: int = 0
    batches_from: int = 0
    ended_phases: tuple[int, ...] = ()
    iterations: int | None = None
    history: History | None = None
    texts: tuple[str, ...] = ()
    amends: bool = False


@dataclass(frozen=True)
class Datasets:
    """What the training samples are made from, beyond the plan.

    Attributes:
        config: Megatron's dataset config.
        seed: Seed of the samples: ``config.random_seed``.
        tokens: Ids of NCA's tokens with a digest of them and of the first samples, or None without ``nca:`` entries.
        texts: Identity of each text, in the data path's order; empty strings where it cannot be told.
        history: What the run has planned so far, this start with it; None without a plan.
    """

    config: Any
    seed: int
    tokens: str | None = None
    texts: tuple[str, ...] = ()
    history: History | None = None


class Run(Protocol):
    """What the builder asks of the run that it builds for."""

    @property
    def stack(self) -> Stack:
        """The stack that it is on."""

    @property
    def data_info(self) -> DataInfo:
        """What is known of the run."""

    @property
    def is_driven(self) -> bool:
        """Whether something has undertaken to call the transition before every step."""

    def begin(self, plan: Plan | None, datasets: Datasets) -> None:
        """Take the training plan, None where training has no word of ours; called on every rank, before any text is built."""
