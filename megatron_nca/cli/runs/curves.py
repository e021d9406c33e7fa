"""A run's losses over the tokens it has read, those of text and those of NCA told apart."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from megatron_nca.checkpoints.folder import TRACKER
from megatron_nca.cli.common import UsageError
from megatron_nca.cli.launch.reading import boundaries_of
from megatron_nca.data.curriculum import mentions_nca, plan_training, read_blend
from megatron_nca.data.phase_word import blend_of
from megatron_nca.errors import NCAError

TRAINING = ("lm loss", "reduced_train_loss", "train_loss", "loss")
VALIDATION = ("lm loss validation", "val_loss", "validation_loss", "valid_loss")
"""What frameworks call their losses."""
SHOWN = ("seed", "num_layers", "hidden_size", "global_batch_size", "seq_length", "lr", "train_iters", "train_samples")
BATCH_ARGUMENTS = ("rampup_batch_size", "step_batch_size_schedule", "global_batch_size", "seq_length")


class Point(NamedTuple):
    """A loss.

    Attributes:
        text: Text tokens read before it.
        nca: NCA tokens read before it.
        loss: The mean cross-entropy, in nats.
    """

    text: int
    nca: int
    loss: float


@dataclass(frozen=True)
class Run:
    """What was read of a run.

    Attributes:
        name: What it is called.
        kind: What it was read from.
        training: Losses of steps.
        validation: Losses on held-out text.
        plan: Its plan as the run has printed it, or None.
        facts: What it tells of itself: its arguments, and what the record of its last checkpoint holds.
    """

    name: str
    kind: str
    training: tuple[Point, ...]
    validation: tuple[Point, ...]
    plan: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def nca_tokens(self) -> int:
        """NCA tokens that it has read."""
        return max((point.nca for point in (*self.training, *self.validation)), default=0)


@dataclass(frozen=True)
class Reading:
    """How a run reads its data.

    Attributes:
        count: Consumed samples -> (text tokens, NCA tokens).
        plan: Its plan, or None without a word of ours.
    """

    count: Callable[[int], tuple[int, int]]
    plan: str | None = None


def reading_of(arguments: Mapping[str, str], sequence_length: int | None, name: str) -> Reading:
    """Tell how many tokens of each kind a run of Megatron-LM's arguments has read after some samples.

    Args:
        arguments: As Megatron-LM prints them, by name.
        sequence_length: Where they do not tell it.
        name: The run's, for errors.

    Raises:
        UsageError: They do not tell enough.
    """
    known = {key: _value(value) for key, value in arguments.items()}
    length = known.get("seq_length") or sequence_length
    if not isinstance(length, int):
        raise UsageError(f"{name}: does not tell its sequence length; give --seq-length")
    words = known.get("data_path") or known.get("train_data_path")
    if not isinstance(words, list) or not mentions_nca(blend_of(words)):
        return Reading(lambda samples: (samples * length, 0))
    args = argparse.Namespace(**{key: known.get(key) for key in BATCH_ARGUMENTS} | {"seq_length": length})
    if isinstance(args.rampup_batch_size, list):
        args.rampup_batch_size = [int(number) for number in args.rampup_batch_size]
    iterations, samples = known.get("train_iters"), known.get("train_samples")
    try:
        plan = plan_training(
            read_blend(blend_of(words)), length, samples or (iterations or 1) * (args.global_batch_size or 1),
            boundaries_of(args), iterations=None if samples else iterations,
        )  # fmt: skip
    except (NCAError, TypeError) as error:
        raise UsageError(f"{name}: its arguments make no plan ({error})") from None

    def count(consumed: int) -> tuple[int, int]:
        nca, text = plan.nca_and_text(plan.schedule.counts(consumed))
        return text * length, nca * length

    return Reading(count, plan.describe())


def facts_of(arguments: Mapping[str, str]) -> dict[str, str]:
    """Return what a reader wants to know: some arguments, and what the record of the last checkpoint says of the tokens."""
    facts = {name: arguments[name] for name in SHOWN if arguments.get(name, "None") != "None"}
    saved = Path(arguments.get("save") or "None")
    if (saved / TRACKER).is_file():
        # A checkpoint may be gone, or of another kind, and says the less.
        with suppress(NCAError, ImportError, OSError):
            from megatron_nca.checkpoints.recorded import read_record

            record = read_record(saved)
            facts |= {"stream": str(record.stream), "NCA tokens": str(record.tokens), "texts": ", ".join(record.texts or ())}
    return facts


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


Scalars = Mapping[str, Sequence[tuple[int, float]]]
"""Name -> (step, value) pairs."""


def run_of_scalars(name: str, kind: str, scalars: Scalars, arguments: Mapping[str, str], sequence_length: int | None) -> Run:
    """Make a run of scalars, as TensorBoard and CSV files hold them.

    Raises:
        UsageError: They hold no loss, or do not tell the tokens.
    """
    curves = {}
    for names in (TRAINING, VALIDATION):
        found = next((one for one in names if scalars.get(one)), None)
        curves[names] = () if found is None else tuple(_points(name, found, scalars, arguments, sequence_length))
    if not any(curves.values()):
        raise UsageError(f"{name}: holds no loss; looked for {', '.join((*TRAINING, *VALIDATION))}")
    plan = reading_of(arguments, sequence_length, name).plan if arguments else None
    return Run(name, kind, curves[TRAINING], curves[VALIDATION], plan, facts_of(arguments))


def _points(name: str, loss: str, scalars: Scalars, arguments: Mapping[str, str], sequence_length: int | None) -> list[Point]:
    values = scalars[loss]
    steps = np.array([step for step, _ in values], dtype=np.float64)
    if scalars.get("text/tokens"):
        text = _at(steps, scalars["text/tokens"])
        nca = _at(steps, scalars["nca/tokens"]) if scalars.get("nca/tokens") else np.zeros(len(steps))
        return [Point(round(one), round(other), value) for one, other, (_, value) in zip(text, nca, values, strict=True)]
    if scalars.get(f"{loss} vs samples"):
        samples, values = [step for step, _ in scalars[f"{loss} vs samples"]], scalars[f"{loss} vs samples"]
    elif scalars.get("consumed_samples"):
        samples = [round(one) for one in _at(steps, scalars["consumed_samples"])]
    else:
        raise UsageError(
            f"{name}: does not tell the tokens of its steps; looked for text/tokens, {loss} vs samples, consumed_samples"
        )
    count = reading_of(arguments, sequence_length, name).count
    return [Point(*count(consumed), value) for consumed, (_, value) in zip(samples, values, strict=True)]


def _at(steps: npt.NDArray[np.float64], series: Sequence[tuple[int, float]]) -> npt.NDArray[np.float64]:
    """Return a count at some steps, straight between those that it was written at and from 0 at step 0."""
    known = sorted(({0: 0.0} | dict(series)).items())
    return np.interp(steps, [step for step, _ in known], [value for _, value in known])
