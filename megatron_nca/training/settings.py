"""What a user can choose about the transition; known without torch, so that a launch can be checked where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from megatron_nca.errors import NCAError
from megatron_nca.training.learning_rate import PhaseLearningRate

PARTS = ("embeddings", "attention", "mlp", "norms")
OPTIMIZER_CHOICES = ("fresh", "keep")
LR_CHOICES = ("restart", "continue")


@dataclass(frozen=True)
class TransitionSettings:
    """What the transition does.

    Attributes:
        reinit: Parts to initialise anew, of ``embeddings``, ``attention``, ``mlp`` and ``norms``; empty for none.
        optimizer: ``fresh`` clears moments and step, ``keep`` leaves them.
        lr: ``restart`` gives the NCA phases and the text a schedule each, ``continue`` one schedule to the whole run.
        phase_lr: Peak and warm-up of the NCA phases' schedule under ``restart``.
        text_warmup_fraction: Warm-up of the text as a share of its decay, or None for the scheduler's own warm-up.

    Raises:
        NCAError: A choice is none of these.
    """

    reinit: tuple[str, ...] = ("embeddings",)
    optimizer: str = "fresh"
    lr: str = "restart"
    phase_lr: PhaseLearningRate = field(default_factory=PhaseLearningRate)
    text_warmup_fraction: float | None = None

    def __post_init__(self) -> None:
        _require_choice("optimizer", self.optimizer, OPTIMIZER_CHOICES)
        _require_choice("lr", self.lr, LR_CHOICES)
        for part in self.reinit:
            _require_choice("reinit", part, PARTS)


def _require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise NCAError(f"transition: {name}={value!r} must be one of {', '.join(choices)}")
