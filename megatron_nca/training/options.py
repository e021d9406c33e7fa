"""The options of a run: each stands once, in ``OPTIONS``, whatever the stack.

    Megatron-LM      --nca-lr-at-switch restart       add_arguments, take_arguments
    NeMo             nca_lr_at_switch="restart"       parameters of NCADataModule
    Megatron-Bridge  nca.lr_at_switch=restart         overrides
    a script         Options(lr_at_switch="restart")

Help, defaults, choices and checks come from the rows, and an error speaks the spelling of the stack that the user is on.
"""

from __future__ import annotations

import argparse
import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from megatron_nca.errors import NCAError
from megatron_nca.stacks import CORE, MEGATRON_LM, NEMO, STACKS, Stack
from megatron_nca.training.learning_rate import PhaseLearningRate
from megatron_nca.training.settings import LR_CHOICES, OPTIMIZER_CHOICES, PARTS, TransitionSettings

PREFIX = "nca_"
RESUME_CHOICES = ("before-switch", "after-switch")
DECAY_STYLES = ("constant", "linear", "cosine", "inverse-square-root", "WSD")


@dataclass(frozen=True)
class Option:
    """A row of the table.

    Attributes:
        name: Its name, words separated by ``_``.
        read_value: Makes the value of what the user wrote; raises ValueError.
        help: What it does, in a line.
        default: What holds where it is not given.
        choices: What it may be, or nothing for any value.
        metavar: How help writes the value.
        alone: The value of a flag that is given without one; None for an option that needs a value.
        elsewhere: Stacks without it, each name with why and what to do there.
    """

    name: str
    read_value: Callable[[Any], Any]
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    alone: Any = None
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def read(self, given: Any, stack: Stack) -> Any:
        """Return the value of what a user gave.

        Raises:
            NCAError: It is of another type, none of the choices, or the stack has no such option.
        """
        if stack.name in self.elsewhere:
            raise NCAError(f"{stack.option(self.name)}: {self.elsewhere[stack.name]}")
        try:
            value = self.read_value(given)
        except (ValueError, TypeError, OverflowError) as error:
            raise NCAError(f"{stack.option(self.name, given)}: {error}") from None
        if self.choices and value not in self.choices:
            raise NCAError(f"{stack.option(self.name, given)}: must be one of {', '.join(self.choices)}")
        return value


def _parts(given: Any) -> tuple[str, ...]:
    if not isinstance(given, str):
        given = ",".join(given) or "none"
    parts = () if given == "none" else tuple(part.strip() for part in given.split(","))
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} must be one of {', '.join(PARTS)}, or the whole none")
    return parts


def _word(given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError("must be a word")
    return given


def _rate(given: Any) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        raise ValueError("is no number, such as 1e-4") from None
    if not 0 <= value < math.inf:
        raise ValueError("must be a finite number, not below 0")
    return value


def _count(given: Any) -> int:
    try:
        value = int(given)
        exact = not isinstance(given, bool) and float(given) == value
    except (TypeError, ValueError):
        raise ValueError("is not a whole number") from None
    if not exact:
        raise ValueError("is not a whole number")
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _truth(given: Any) -> bool:
    words = {"true": True, "false": False}
    if isinstance(given, bool):
        return given
    if not isinstance(given, str) or given.lower() not in words:
        raise ValueError("must be true or false")
    return words[given.lower()]


_VALUE_TYPES: dict[Any, type] = {_rate: float, _count: int, _truth: bool}

_IN_SAMPLES = f"its schedulers count steps; give {NEMO.option('lr_warmup_steps')}"
_NEMO_DECAY = "its decay is the scheduler's own class; choose another scheduler in the recipe's optim.lr_scheduler"

OPTIONS: tuple[Option, ...] = (
    Option("reinit", _parts, "drawn anew at the switch to text: none, or any of embeddings,attention,mlp,norms, separated by "
           "commas", ("embeddings",), metavar="PARTS"),
    Option("optimizer", _word, "moments and step at the switch", "fresh", OPTIMIZER_CHOICES),
    Option("lr_at_switch", _word, "restart: warm-up and decay anew over what remains; continue: one schedule over the run",
           "restart", LR_CHOICES),
    Option("lr", _rate, "peak learning rate of the NCA phases (the run's own without it; the paper's is 1e-4)"),
    Option("min_lr", _rate, "learning rate at the end of the NCA phases (the run's own without it)"),
    Option("decoupled_lr", _rate, "peak learning rate of the embeddings in the NCA phases, beside the run's own decoupled rate "
           "(in proportion to the others' without it)"),
    Option("decoupled_min_lr", _rate, "the embeddings' learning rate at the end of the NCA phases (in proportion without it)",
           elsewhere={NEMO.name: "its schedulers have one end for all weights; give nca_min_lr"}),
    Option("lr_warmup_samples", _count, "warm-up of the NCA phases, in samples (a tenth of them without it)",
           elsewhere={NEMO.name: _IN_SAMPLES}),
    Option("lr_warmup_steps", _count, "warm-up of the NCA phases, in steps (a tenth of them without it)",
           elsewhere={stack.name: f"the warm-up is counted in samples; give {stack.option('lr_warmup_samples')}"
                      for stack in STACKS if stack is not NEMO}),
    Option("lr_decay_style", _word, "decay of the NCA phases (the run's own without it)", choices=DECAY_STYLES,
           elsewhere={NEMO.name: _NEMO_DECAY}),
    Option("valid", _count, "evaluate NCA of held-out rules beside every validation of text: loss, and accuracy of next "
           "frames' cells by frames seen; BATCHES global batches, as many as of text without a number", metavar="BATCHES",
           alone=0),
    Option("resume_as", _word, "where a checkpoint that was written without nca: entries stands", choices=RESUME_CHOICES),
    Option("amend_curriculum", _truth, "from the checkpoint on the launch's data path holds, and every source goes on at its "
           "next unread sample", False, alone=True),
    Option("override_curriculum", _truth, "go on from a checkpoint of another curriculum", False, alone=True),
)  # fmt: skip

SCHEDULE = ("lr", "min_lr", "decoupled_lr", "decoupled_min_lr", "lr_warmup_samples", "lr_warmup_steps", "lr_decay_style")
"""The options that give the NCA phases a schedule of their own."""

BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True)
class Options:
    """What the options say; the fields are the rows of ``OPTIONS``.

    Attributes:
        reinit: Parts to draw anew at the switch; empty for none.
        optimizer: ``fresh`` or ``keep``.
        lr_at_switch: ``restart`` or ``continue``.
        lr: Peak learning rate of the NCA phases, or None for the run's.
        min_lr: Learning rate at their end, or None for the run's.
        decoupled_lr: Peak learning rate of the embeddings in them, or None for one in proportion.
        decoupled_min_lr: The embeddings' learning rate at their end, or None for one in proportion.
        lr_warmup_samples: Their warm-up in samples, or None for a tenth of them.
        lr_warmup_steps: Their warm-up in steps, where the stack's schedulers count steps.
        lr_decay_style: Their decay, or None for the run's.
        valid: Global batches of NCA in every validation: None for no such validation, 0 for as many as of text.
        resume_as: Where a checkpoint without a curriculum stands, or None.
        amend_curriculum: Whether the launch's data path holds from the checkpoint on.
        override_curriculum: Whether to go on from a checkpoint of another curriculum.
    """

    reinit: tuple[str, ...] = ("embeddings",)
    optimizer: str = "fresh"
    lr_at_switch: str = "restart"
    lr: float | None = None
    min_lr: float | None = None
    decoupled_lr: float | None = None
    decoupled_min_lr: float | None = None
    lr_warmup_samples: int | None = None
    lr_warmup_steps: int | None = None
    lr_decay_style: str | None = None
    valid: int | None = None
    resume_as: str | None = None
    amend_curriculum: bool = False
    override_curriculum: bool = False

    @classmethod
    def read(cls, given: Mapping[str, Any], stack: Stack = CORE) -> Options:
        """Make them of what a user gave.

        Args:
            given: Values by name; a missing one, or None, is the default.
            stack: The stack whose spelling errors use.

        Raises:
            NCAError: There is no such option, not on this stack, or its value is not usable.
        """
        unknown = sorted(given.keys() - BY_NAME.keys())
        if unknown:
            offered = ", ".join(stack.option(row.name) for row in options_of(stack))
            raise NCAError(f"{stack.option(unknown[0])}: there is no such option; {stack.name} takes {offered}")
        options = cls(**{name: BY_NAME[name].read(value, stack) for name, value in given.items() if value is not None})
        options._check(stack)
        return options

    def _check(self, stack: Stack) -> None:
        own = [name for name in SCHEDULE if getattr(self, name) is not None]
        if self.lr_at_switch == "continue" and own:
            raise NCAError(
                f"{stack.option(own[0])} and its like give the NCA phases a schedule of their own; with "
                f"{stack.option('lr_at_switch', 'continue')} there is one for the whole run; give one or the other"
            )

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the options that differ from their defaults."""
        return tuple(item.name for item in fields(self) if getattr(self, item.name) != item.default)

    @property
    def text_restarts(self) -> bool:
        """Whether the text has a schedule of its own behind the switch."""
        return self.lr_at_switch == "restart"

    def transition_settings(self, text_warmup_fraction: float | None = None) -> TransitionSettings:
        """Return what the transition is told.

        Args:
            text_warmup_fraction: Warm-up of the text as a share of its decay, or None for the scheduler's own warm-up.
        """
        phase = PhaseLearningRate(
            self.lr, self.min_lr, self.lr_warmup_samples, self.lr_decay_style, self.decoupled_lr, self.decoupled_min_lr
        )
        return TransitionSettings(self.reinit, self.optimizer, self.lr_at_switch, phase, text_warmup_fraction)


def options_of(stack: Stack) -> tuple[Option, ...]:
    """Return the rows that a stack has."""
    return tuple(option for option in OPTIONS if stack.name not in option.elsewhere)


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the group to Megatron-LM's parser; what is not given leaves no trace in its arguments and checkpoints."""
    group = parser.add_argument_group(
        title="megatron-nca", description="Pre-pre-training on neural cellular automata: nca: entries of a data path."
    )
    for option in options_of(MEGATRON_LM):
        add_argument(group, option, MEGATRON_LM.option(option.name), default=argparse.SUPPRESS)
    return parser


def add_argument(group: Any, option: Option, flag: str, default: Any = None) -> None:
    """Add a row to a parser under a name of its own; its value is read later, by ``Options.read``."""
    shown = "none" if option.default == () else option.default
    if isinstance(shown, tuple):
        shown = ",".join(shown)
    help_text = option.help + (f" (default: {shown})" if shown not in (None, False) else "")
    if option.read_value is _truth:
        group.add_argument(flag, action="store_true", default=default, help=help_text)
        return
    extra: dict[str, Any] = {"nargs": "?", "const": option.alone} if option.alone is not None else {}
    metavar = option.metavar or ("{" + ",".join(option.choices) + "}" if option.choices else None)
    group.add_argument(flag, metavar=metavar, default=default, help=help_text, **extra)


def take_arguments(args: Any) -> dict[str, Any]:
    """Remove what was given from Megatron's arguments, and return it by name."""
    names = [name for name in vars(args) if name.startswith(PREFIX) and name[len(PREFIX) :] in BY_NAME]
    return {name[len(PREFIX) :]: vars(args).pop(name) for name in names}


def read_overrides(words: Sequence[str], stack: Stack) -> Options:
    """Read ``nca.KEY=VALUE`` overrides.

    Args:
        words: The words of the command line that begin with ``nca.``, with or without Hydra's ``+``.
        stack: The stack whose spelling errors use.

    Raises:
        NCAError: A key or value is not usable.
    """
    given: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.lstrip("+")[len(stack.prefix) :].partition("=")
        option = BY_NAME.get(key)
        if not separator:
            if option is None or option.alone is None:
                raise NCAError(f"{word}: has no value; write {stack.option(key)}=VALUE")
            value = option.alone
        given[key] = value
    return Options.read(given, stack)


def parameters(stack: Stack) -> list[inspect.Parameter]:
    """Return the rows as parameters that a command line reads: classes for types, unions as typing writes them."""
    rows = []
    for option in options_of(stack):
        default = ",".join(option.default) if isinstance(option.default, tuple) else option.default
        value_type = _VALUE_TYPES.get(option.read_value, str)
        kind: Any = value_type if default is not None else typing.Optional[value_type]  # noqa: UP045
        name = PREFIX + option.name
        rows.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind))
    return rows
