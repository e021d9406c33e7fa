"""Megatron-LM's log, read back: a record an iteration, a record a validation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

_ITERATION = re.compile(r"iteration +(\d+)/ *\d+ \|(.*)\n")
_VALIDATION = re.compile(r"(validation|test) loss at iteration (\d+)(?: on (\w+) set)? \| lm loss value: (\S+) ")


@dataclass(frozen=True)
class Iteration:
    """What Megatron-LM logs of an iteration. Numbers are the printed ones.

    Args:
        iteration: Counted from 1.
        consumed_samples: Samples consumed after the iteration.
        learning_rate: Learning rate of the iteration that follows: Megatron-LM logs after the scheduler's step.
        loss: `lm loss`; None where no loss of this iteration alone is printed: it was skipped, or its line
            holds a mean.
        grad_norm: None where it is not computed.
        fields: Every field of the line by its name, as printed.
    """

    iteration: int
    consumed_samples: int
    learning_rate: float | None
    loss: float | None
    grad_norm: float | None
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Validation:
    """A loss on held-out data.

    Args:
        iteration: The iteration after which it was measured.
        split: None during training; after training `validation` or `test`.
        loss: `lm loss value`.
    """

    iteration: int
    split: str | None
    loss: float


@dataclass(frozen=True)
class TrainingLog:
    """A run's log.

    Args:
        text: The last rank's output, which holds the losses.
        iterations: Iterations in the order of the log.
        validations: Validations in the order of the log.
    """

    text: str
    iterations: tuple[Iteration, ...]
    validations: tuple[Validation, ...]

    @property
    def losses(self) -> dict[int, float]:
        """The training loss by iteration, of the iterations that have one of their own."""
        return {record.iteration: record.loss for record in self.iterations if record.loss is not None}

    @property
    def learning_rates(self) -> dict[int, float | None]:
        """The learning rate by iteration."""
        return {record.iteration: record.learning_rate for record in self.iterations}


def parse_log(text: str, second_is_mean: bool = False) -> TrainingLog:
    """Read the output of a run's last rank.

    Args:
        text: The output.
        second_is_mean: Whether the second line of a process holds the mean loss of its first two iterations, as in
            Megatron-LM since 0.16.

    Returns:
        The records.
    """
    iterations = [_iteration(match) for match in _ITERATION.finditer(text)]
    if second_is_mean and len(iterations) > 1:
        iterations[1] = replace(iterations[1], loss=None)
    validations = tuple(Validation(int(match[2]), match[3], float(match[4])) for match in _VALIDATION.finditer(text))
    return TrainingLog(text, tuple(iterations), validations)


def _iteration(match: re.Match[str]) -> Iteration:
    pairs = (field.partition(":") for field in match[2].split("|"))
    fields = {name.strip(): value.strip() for name, colon, value in pairs if colon}
    return Iteration(
        iteration=int(match[1]),
        consumed_samples=int(fields["consumed samples"]),
        learning_rate=_number(fields.get("learning rate")),
        loss=_number(fields.get("lm loss")),
        grad_norm=_number(fields.get("grad norm")),
        fields=fields,
    )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
