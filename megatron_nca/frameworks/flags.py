"""The ``--nca-*`` flags of a Megatron-LM launch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

from megatron_nca.errors import NCAError
from megatron_nca.training import TransitionSettings
from megatron_nca.training.learning_rate import PhaseLearningRate
from megatron_nca.training.settings import LR_CHOICES, OPTIMIZER_CHOICES

PREFIX = "nca_"
RESUME_CHOICES = ("before-switch", "after-switch")
DECAY_STYLES = ("constant", "linear", "cosine", "inverse-square-root", "WSD")


@dataclass(frozen=True)
class Flags:
    """What the flags say.

    Attributes:
        transition: What happens at the switch.
        override_curriculum: Whether to go on from a checkpoint of another curriculum.
        resume_as: Where a checkpoint without a curriculum stands, or None.
        valid_batches: Global batches of NCA in every validation: None for no such validation, 0 for as many as of text.
    """

    transition: TransitionSettings = field(default_factory=TransitionSettings)
    override_curriculum: bool = False
    resume_as: str | None = None
    valid_batches: int | None = None

    @classmethod
    def read(cls, given: dict[str, Any], args: Any) -> Flags:
        """Make them of the flags that were given and of Megatron's own arguments.

        Args:
            given: As ``take_flags`` returns them.
            args: Megatron's arguments, validated.

        Raises:
            NCAError: A flag's value is not usable.
        """
        reinit = given.get("nca_reinit", "embeddings")
        phase_lr = PhaseLearningRate(
            peak=given.get("nca_lr"),
            minimum=given.get("nca_min_lr"),
            warmup_samples=given.get("nca_lr_warmup_samples"),
            decay_style=given.get("nca_lr_decay_style"),
        )
        _check_learning_rate(phase_lr)
        settings = TransitionSettings(
            reinit=() if reinit == "none" else tuple(part.strip() for part in reinit.split(",")),
            optimizer=given.get("nca_optimizer", "fresh"),
            lr=given.get("nca_lr_at_switch", "restart"),
            phase_lr=phase_lr,
            text_warmup_fraction=getattr(args, "lr_warmup_fraction", None),
        )
        if settings.lr == "continue" and phase_lr != PhaseLearningRate():
            raise NCAError(
                "--nca-lr and its like give the NCA phases a schedule of their own; with --nca-lr-at-switch continue there is "
                "one for the whole run; give one or the other"
            )
        valid_batches = given.get("nca_valid")
        if valid_batches is not None and valid_batches < 0:
            raise NCAError(f"--nca-valid {valid_batches}: is a number of global batches, which must not be negative")
        if valid_batches is not None and not getattr(args, "eval_iters", None):
            raise NCAError(
                "--nca-valid runs beside the validation of text, and --eval-iters is 0; give --eval-iters, or leave it out"
            )
        return cls(settings, given.get("nca_override_curriculum", False), given.get("nca_resume_as"), valid_batches)


def _check_learning_rate(phase: PhaseLearningRate) -> None:
    for flag, value in (("--nca-lr", phase.peak), ("--nca-min-lr", phase.minimum)):
        if value is not None and not 0 <= value < float("inf"):
            raise NCAError(f"{flag} {value}: must be a finite number, not below 0")
    if phase.warmup_samples is not None and phase.warmup_samples < 0:
        raise NCAError(f"--nca-lr-warmup-samples {phase.warmup_samples}: must not be negative")


def add_flags(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the group to Megatron's parser; flags that are not given leave no trace in its arguments."""
    group = parser.add_argument_group(
        title="megatron-nca", description="Pre-pre-training on neural cellular automata: nca: entries of a data path."
    )
    add = _Adder(group)
    add("--nca-reinit", metavar="PARTS", help="initialised anew at the switch to text: none, or any of embeddings,attention,"
        "mlp,norms, separated by commas (default: embeddings)")  # fmt: skip
    add("--nca-optimizer", choices=OPTIMIZER_CHOICES, help="moments and step at the switch (default: fresh)")
    add("--nca-lr-at-switch", choices=LR_CHOICES, help="restart: warm-up and decay anew over what remains; continue: one "
        "schedule over the run (default: restart)")  # fmt: skip
    add("--nca-lr", type=float, help="peak learning rate of the NCA phases (default: --lr; the paper's is 1e-4)")
    add("--nca-min-lr", type=float, help="learning rate at the end of the NCA phases (default: --min-lr)")
    add("--nca-lr-warmup-samples", type=int, help="warm-up of the NCA phases (default: a tenth of them)")
    add("--nca-lr-decay-style", choices=DECAY_STYLES, help="decay of the NCA phases (default: --lr-decay-style)")
    add("--nca-valid", nargs="?", type=int, const=0, metavar="BATCHES", help="evaluate NCA of held-out rules beside every "
        "validation of text: loss, and accuracy of next frames' cells by frames seen (BATCHES: --eval-iters)")  # fmt: skip
    add("--nca-resume-as", choices=RESUME_CHOICES, help="where a checkpoint that was written without nca: entries stands")
    add("--nca-override-curriculum", action="store_true", help="go on from a checkpoint of another curriculum")
    return parser


class _Adder:
    """Adds flags without a default, so that Megatron's list of arguments and its checkpoints change only where one is given."""

    def __init__(self, group: Any) -> None:
        self.group = group

    def __call__(self, name: str, **options: Any) -> None:
        self.group.add_argument(name, default=argparse.SUPPRESS, **options)


def take_flags(args: Any) -> dict[str, Any]:
    """Remove the flags that were given from Megatron's arguments, and return them."""
    names = [name for name in vars(args) if name.startswith(PREFIX)]
    return {name: vars(args).pop(name) for name in names}
