"""What a framework knows of the run that Megatron-Core's dataset builder is not told, and what it wants to know of the plan.

Megatron-Core keeps its run state in module globals, one run a process; so does this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from megatron_nca.data.curriculum import Plan


@dataclass(frozen=True)
class RunFacts:
    """Facts about the run, as known when its datasets are built.

    Attributes:
        padded_vocab_size: Rows of the model's embedding.
        dataloader_type: Megatron's ``--dataloader-type``.
        consumed_samples: Samples of the steps before this start.
        ended_phases: Where the phases that have ended did end, which another batch size must not move.
    """

    padded_vocab_size: int | None = None
    dataloader_type: str | None = None
    consumed_samples: int = 0
    ended_phases: tuple[int, ...] = ()


class Framework(Protocol):
    """What an adapter tells and hears when datasets are built."""

    def facts(self) -> RunFacts:
        """Return what is known of the run."""

    def planned(self, plan: Plan | None) -> None:
        """Take the training plan; called on every rank, also where it reads no data, before any text is built."""


class NoFramework:
    """Megatron-Core alone: nothing is known beyond its dataset config."""

    def facts(self) -> RunFacts:
        """Return no facts."""
        return RunFacts()

    def planned(self, plan: Plan | None) -> None:
        """Do nothing."""


_framework: Framework = NoFramework()
_plan: Plan | None = None
_dataset_config: Any = None


def set_framework(framework: Framework | None) -> None:
    """Name the adapter of this process; None for Megatron-Core alone."""
    global _framework
    _framework = framework or NoFramework()


def facts() -> RunFacts:
    """Return what the framework knows of the run."""
    return _framework.facts()


def current_plan() -> Plan | None:
    """Return the training plan of the datasets built last in this process; None without ``nca:`` entries in training."""
    return _plan


def dataset_config() -> Any:
    """Return Megatron's dataset config of the datasets built last in this process, or None."""
    return _dataset_config


def set_plan(plan: Plan | None, config: Any = None) -> None:
    """Keep the training plan and the dataset config it was made with, and hand the plan to the framework."""
    global _plan, _dataset_config
    _plan, _dataset_config = plan, config
    _framework.planned(plan)
