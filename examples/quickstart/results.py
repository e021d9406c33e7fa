"""Both runs side by side: validation after equal text, and the text that the NCA run needed for the baseline's result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from examples.quickstart.folder import BASELINE, WITH_NCA, RunFolder
from examples.quickstart.journal import Entry


@dataclass(frozen=True)
class Curve:
    """What a run wrote down.

    Attributes:
        name: Of the run.
        steps: An entry for every optimizer step.
        validations: An entry for every validation.
        environment: What it ran on.
    """

    name: str
    steps: list[Entry]
    validations: list[Entry]
    environment: Entry

    @property
    def tokens_per_second(self) -> float:
        """Training speed of the median step."""
        return float(median(entry["tokens"] / entry["seconds"] for entry in self.steps))

    @property
    def final_loss(self) -> float:
        """Validation loss at the end, in nats a token."""
        return float(self.validations[-1]["loss"])


@dataclass(frozen=True)
class Row:
    """Both runs after the same text.

    Attributes:
        text_tokens: How much.
        baseline: Validation loss without NCA, in nats a token.
        with_nca: Validation loss with it.
    """

    text_tokens: int
    baseline: float
    with_nca: float

    @property
    def loss_change(self) -> float:
        """Relative change of the loss; negative where NCA helped."""
        return self.with_nca / self.baseline - 1

    @property
    def perplexity_change(self) -> float:
        """Relative change of the perplexity."""
        return math.exp(self.with_nca - self.baseline) - 1


@dataclass(frozen=True)
class Comparison:
    """Both runs.

    Attributes:
        baseline: Text alone.
        with_nca: NCA, then the same text.
    """

    baseline: Curve
    with_nca: Curve

    @property
    def rows(self) -> list[Row]:
        """Both runs at every validation."""
        pairs = zip(self.baseline.validations, self.with_nca.validations, strict=True)
        return [Row(ours["text_tokens"], theirs["loss"], ours["loss"]) for theirs, ours in pairs]

    @property
    def nca_tokens(self) -> int:
        """Tokens of the NCA phase."""
        return sum(entry["tokens"] for entry in self.with_nca.steps if entry["source"] == "nca")

    @property
    def text_tokens(self) -> int:
        """Text of either run."""
        return int(self.baseline.validations[-1]["text_tokens"])

    @property
    def text_tokens_to_match(self) -> float | None:
        """Text that the NCA run needed for the baseline's final loss, between validations in proportion; None if never."""
        target = self.baseline.final_loss
        earlier = None
        for row in self.rows:
            if row.with_nca <= target:
                return _crossing(earlier, row, target) if earlier else float(row.text_tokens)
            earlier = row
        return None


def _crossing(above: Row, below: Row, target: float) -> float:
    share = (above.with_nca - target) / (above.with_nca - below.with_nca)
    return above.text_tokens + share * (below.text_tokens - above.text_tokens)


def read_comparison(out: Path) -> Comparison:
    """Read both runs from the output folder."""
    return Comparison(*(_read_curve(out, name) for name in (BASELINE, WITH_NCA)))


def _read_curve(out: Path, name: str) -> Curve:
    folder = RunFolder(out, name)
    return Curve(name, folder.steps.read(), folder.validations.read(), folder.read_environment())
