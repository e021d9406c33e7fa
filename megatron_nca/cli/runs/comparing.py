"""Runs beside their baselines: the difference of their losses at equal text tokens, and how sure it is.

At n places over the text tokens that all runs have read, with m_r and m_b the mean losses of the two groups' runs

    difference   d = m_r - m_b
    margin       t(95 %, f) sqrt(s_r^2 / n_r + s_b^2 / n_b)        Welch's, f his degrees of freedom

    paired       t(95 %, n - 1) s_d / sqrt(n)                       of runs that share their seeds, one by one

where a group of one run takes the other's s. A difference within its margin is none; without two runs on a side there is no
margin, and nothing is called one. A curve between two points is a straight line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_nca.cli.common import UsageError
from megatron_nca.cli.pictures.looks import count
from megatron_nca.cli.runs.curves import Point, Run

PLACES = 100
TABLE_PLACES = 8
SMOOTHED = 50
"""Pieces of a curve of single steps, each of which is a mean: one step's loss says little."""
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
    2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t of 97.5 %, for 1 to 30 degrees of freedom."""
T_NORMAL = 1.96

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Two groups of runs over the text tokens that all of them have read.

    Attributes:
        of: ``validation`` or ``training``.
        runs: The runs.
        baselines: Theirs.
        text: Text tokens, float64 (places,).
        losses: Losses of the runs and of the baselines, each float64 (runs, places).
        difference: float64 (places,); below 0 the runs are better.
        margin: float64 (places,), or None where one run stands on each side.
    """

    of: str
    runs: tuple[Run, ...]
    baselines: tuple[Run, ...]
    text: Array
    losses: tuple[Array, Array]
    difference: Array
    margin: Array | None

    def verdict(self, place: int = -1) -> str:
        """Say what the difference at a place is: ``better``, ``worse``, ``within the spread``, or ``no spread known``."""
        if self.margin is None:
            return "no spread known"
        if abs(self.difference[place]) <= self.margin[place]:
            return "within the spread"
        return "better" if self.difference[place] < 0 else "worse"

    @property
    def nca_tokens(self) -> int:
        """NCA tokens that a run has read."""
        return max(run.nca_tokens for run in self.runs)

    def saved(self) -> dict[str, Any] | None:
        """Tell how many text tokens earlier the runs reach the loss that the baselines end with; None where they never do."""
        own, other = (losses.mean(axis=0) for losses in self.losses)
        reached = first_reached(self.text, own, float(other[-1]))
        if reached is None:
            return None
        tokens = float(self.text[-1]) - reached
        return {
            "loss": float(other[-1]), "baseline_tokens": int(self.text[-1]), "run_tokens": round(reached),
            "text_tokens_saved": round(tokens), "nca_tokens_spent": self.nca_tokens, "verdict": self.verdict(),
        }  # fmt: skip


def compare(runs: Sequence[Run], baselines: Sequence[Run], of: str | None = None, paired: bool = False) -> Comparison:
    """Compare.

    Args:
        runs: The runs.
        baselines: Theirs.
        of: ``validation`` or ``training``; None for validation where all have two of it behind their NCA phases.

        paired: Whether the runs and the baselines share their seeds, one by one in their order.

    Raises:
        UsageError: A run lacks the losses, or they have no text tokens in common; pairs are not as many on both sides.
    """
    if paired and not len(runs) == len(baselines) > 1:
        raise UsageError(f"--paired: {len(runs)} runs and {len(baselines)} baselines are no pairs; give two of each at least")
    everyone = (*runs, *baselines)
    if of is None:
        of = "validation" if all(len(_of_text(run.validation)) > 1 for run in everyone) else "training"
    curves = [_curve(run, of) for run in everyone]
    begin, end = max(text[0] for text, _ in curves), min(text[-1] for text, _ in curves)
    if begin >= end:
        raise UsageError(
            f"the runs have no text tokens in common: one begins at {begin:,.0f}, where another has ended at {end:,.0f}"
        )
    # Where the first run was measured, what it shows is what it was.
    own = [place for place in curves[0][0] if begin < place < end]
    places = np.array([begin, *own, end]) if len(own) < PLACES else np.linspace(begin, end, PLACES)
    losses = np.array([np.interp(places, text, loss) for text, loss in curves])
    groups = losses[: len(runs)], losses[len(runs) :]
    difference = groups[0].mean(axis=0) - groups[1].mean(axis=0)
    margin = paired_margin(*groups) if paired else margin_of(*groups)
    return Comparison(of, tuple(runs), tuple(baselines), places, groups, difference, margin)


def _of_text(points: Sequence[Point]) -> list[Point]:
    """Return the points that lie behind the first text."""
    return [point for point in points if point.text > 0]


def _curve(run: Run, of: str) -> tuple[Array, Array]:
    points = _of_text(run.validation if of == "validation" else run.training)
    if len(points) < 2:
        raise UsageError(f"{run.name}: has {len(points)} {of} losses on text; a curve needs two")
    # Between batches of NCA the text stands still; the last of such points is the newest.
    known = dict(sorted((point.text, point.loss) for point in points)) if of == "validation" else _means(points)
    return np.array(list(known), dtype=np.float64), np.array(list(known.values()), dtype=np.float64)


def _means(points: Sequence[Point]) -> dict[float, float]:
    ordered = sorted(points)
    pieces = np.array_split(np.arange(len(ordered)), min(SMOOTHED, len(ordered)))
    parts = [[ordered[place] for place in piece] for piece in pieces]
    return {float(np.mean([one.text for one in part])): float(np.mean([one.loss for one in part])) for part in parts}


def margin_of(own: Array, other: Array) -> Array | None:
    """Return the margin of the difference of two groups' means, at each place; None where neither group has two.

    Args:
        own: Losses of one group, float64 (runs, places).
        other: The same of the other.
    """
    sizes = len(own), len(other)
    if max(sizes) < 2:
        return None
    squares = [group.var(axis=0, ddof=1) if len(group) > 1 else None for group in (own, other)]
    first = squares[1] if squares[0] is None else squares[0]
    second = squares[0] if squares[1] is None else squares[1]
    assert first is not None
    assert second is not None
    parts = first / sizes[0], second / sizes[1]
    total = parts[0] + parts[1]
    if min(sizes) == 1:
        freedom = np.full(total.shape, max(sizes) - 1.0)
    else:
        below = parts[0] ** 2 / (sizes[0] - 1) + parts[1] ** 2 / (sizes[1] - 1)
        freedom = np.where(below > 0, total**2 / np.where(below > 0, below, 1), sum(sizes) - 2)
    half_width: Array = np.array([t_95(degrees) for degrees in freedom]) * np.sqrt(total)
    return half_width


def paired_margin(own: Array, other: Array) -> Array:
    """Return the margin of the mean difference of pairs, at each place."""
    count_of_pairs = len(own)
    margin: Array = t_95(count_of_pairs - 1) * (own - other).std(axis=0, ddof=1) / math.sqrt(count_of_pairs)
    return margin


def t_95(freedom: float) -> float:
    """Return Student's t of 97.5 % for whole degrees of freedom, rounded down."""
    whole = max(math.floor(freedom + 1e-9), 1)
    return T_95[whole - 1] if whole <= len(T_95) else T_NORMAL + 2.5 / whole


def first_reached(text: Array, loss: Array, level: float) -> float | None:
    """Return where a curve first falls to a level, straight between its points; None where it never does."""
    below = np.flatnonzero(loss <= level)
    if not len(below):
        return None
    place = int(below[0])
    if place == 0:
        return float(text[0])
    share = (loss[place - 1] - level) / (loss[place - 1] - loss[place])
    return float(text[place - 1] + share * (text[place] - text[place - 1]))


HEADER = ("text tokens", "run", "baseline", "difference", "margin, 95 %", "the run is")


def rows(found: Comparison) -> list[list[str]]:
    """Return a table of some places, the last among them, under ``HEADER``."""
    own, other = (losses.mean(axis=0) for losses in found.losses)
    places = sorted({round(place) for place in np.linspace(0, len(found.text) - 1, TABLE_PLACES)})
    return [
        [
            count(found.text[place]), f"{own[place]:.4f}", f"{other[place]:.4f}", f"{found.difference[place]:+.4f}",
            "-" if found.margin is None else f"{found.margin[place]:.4f}", found.verdict(place),
        ]
        for place in places
    ]  # fmt: skip


def closing(found: Comparison) -> Iterator[str]:
    """Yield what can be said in sentences, and no more than that."""
    verdict, seeds = found.verdict(), f"{len(found.runs)} against {len(found.baselines)}"
    at, difference = f"{count(found.text[-1])} text tokens", found.difference[-1]
    if verdict == "no spread known":
        yield f"One run on each side: how far seeds lie apart is unknown, so a difference of {difference:+.4f} tells nothing."
        return
    if verdict == "within the spread":
        yield f"At {at} the difference of {difference:+.4f} lies within the spread of the seeds ({seeds}): no gain is shown."
        return
    yield f"At {at} the run is {verdict} by {abs(difference):.4f}, beyond the spread of the seeds ({seeds})."
    saved = found.saved()
    if saved is None:
        yield "It does not reach the loss that the baseline ends with."
    elif verdict == "better":
        yield (
            f"It reaches the baseline's last loss, {saved['loss']:.4f}, after {count(saved['run_tokens'])} text tokens: "
            f"{count(saved['text_tokens_saved'])} fewer, for {count(saved['nca_tokens_spent'])} NCA tokens."
        )
