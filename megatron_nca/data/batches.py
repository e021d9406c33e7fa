"""Where global batches begin: a phase may end there and nowhere else, lest one optimizer step mix two phases.

The size of a batch is a step function of the position at which it begins: the run's own (constant, growing, or in steps of
Megatron's schedules), and over the positions of a phase with ``batch=`` that phase's. So boundaries are pieces of constant
size, each ``first + k size``, and everything asked of them is arithmetic.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple


class Piece(NamedTuple):
    """Batches of one size that follow each other.

    Attributes:
        first: Position at which the first begins.
        size: Samples of each.
        before: Batches before the first, counted from where the boundaries begin.
    """

    first: int
    size: int
    before: int


class PhaseBatch(NamedTuple):
    """A phase with a global batch of its own.

    Attributes:
        begin: Position from which it holds.
        end: Position from which it no longer does, or None to the end of the run.
        size: Samples of a batch.
    """

    begin: int
    end: int | None
    size: int


class BatchBoundaries:
    """The global batches of a run.

    Args:
        batch_size: Samples of a batch, where the run has one size.
        begin: Position at which the first batch begins.
        steps: (position, size) pairs in their order: the size of a batch that begins there or later; None for one size.
        phase_batches: Phases with a batch of their own, in their order.
    """

    def __init__(
        self,
        batch_size: int = 1,
        begin: int = 0,
        steps: Sequence[tuple[int, int]] | None = None,
        phase_batches: tuple[PhaseBatch, ...] = (),
    ) -> None:
        self.begin = begin
        self.steps = tuple(steps) if steps else ((0, batch_size),)
        self.phase_batches = phase_batches
        self._pieces = self._divide()
        self._firsts = [piece.first for piece in self._pieces]

    def _divide(self) -> list[Piece]:
        pieces = [Piece(self.begin, self.size_at(self.begin), 0)]
        for change in self._changes():
            last = pieces[-1]
            batches = max(-(-(change - last.first) // last.size), 0)
            first = last.first + batches * last.size
            size = self.size_at(first)
            if size != last.size:
                pieces.append(Piece(first, size, last.before + batches))
        return pieces

    def _changes(self) -> list[int]:
        edges = {edge for phase in self.phase_batches for edge in (phase.begin, phase.end) if edge is not None}
        return sorted(edge for edge in edges | {position for position, _ in self.steps} if edge > self.begin)

    @property
    def are_known(self) -> bool:
        """Whether there are batches at all; where nothing has set their size, every sample is one."""
        return self.steps != ((0, 1),) or bool(self.phase_batches)

    def size_at(self, position: int) -> int:
        """Return the samples of a batch that begins at a position."""
        size = self.phase_size_at(position)
        return self.run_size_at(position) if size is None else size

    def phase_size_at(self, position: int) -> int | None:
        """Return the batch of the phase that a position lies in, or None where it has the run's."""
        for phase in self.phase_batches:
            if phase.begin <= position and (phase.end is None or position < phase.end):
                return phase.size
        return None

    def run_size_at(self, position: int) -> int:
        """Return the samples of a batch that begins at a position, phases' own batches aside."""
        place = bisect_right(self.steps, position, key=lambda step: step[0])
        return self.steps[max(place - 1, 0)][1]

    def with_phase_batch(self, begin: int, end: int | None, size: int) -> BatchBoundaries:
        """Return them with a batch of a phase's own over its positions; phases are added in their order."""
        return BatchBoundaries(
            begin=self.begin, steps=self.steps, phase_batches=(*self.phase_batches, PhaseBatch(begin, end, size))
        )

    def from_position(self, begin: int) -> BatchBoundaries:
        """Return the run's own batches, counted from another position on."""
        return BatchBoundaries(begin=begin, steps=self.steps)

    def _piece_at(self, samples: int) -> Piece:
        return self._pieces[max(bisect_right(self._firsts, samples) - 1, 0)]

    def round_up(self, samples: int) -> int:
        """Return the first boundary at or after a number of consumed samples."""
        piece = self._piece_at(samples)
        # Before this start's first batch, as if batches had been of its size.
        return piece.first + -(-(samples - piece.first) // piece.size) * piece.size

    def batches_until(self, samples: int) -> int:
        """Return how many batches, and so iterations, end at or before a number of consumed samples."""
        piece = self._piece_at(samples)
        return piece.before + max(samples - piece.first, 0) // piece.size

    def position_after(self, batches: int) -> int:
        """Return the consumed samples after a number of batches."""
        place = bisect_right(self._pieces, batches, key=lambda piece: piece.before) - 1
        piece = self._pieces[max(place, 0)]
        return piece.first + (batches - piece.before) * piece.size

    @classmethod
    def from_megatron(cls, consumed_samples: int = 0) -> BatchBoundaries:
        """Read them off Megatron-Core's microbatch calculator; every sample is a boundary where none is set up.

        Args:
            consumed_samples: Where this start of the run begins. Batches are counted from there, since their size may have
                been another before.
        """
        from megatron.core import num_microbatches_calculator as module

        calculator = module._GLOBAL_NUM_MICROBATCHES_CALCULATOR
        if calculator is None:
            return cls(begin=consumed_samples)
        return cls(begin=consumed_samples, steps=run_steps(getattr(calculator, "run_calculator", calculator)))


def run_steps(calculator: Any) -> tuple[tuple[int, int], ...]:
    """Read the step function of the run's batch size off one of Megatron-Core's calculators.

    Args:
        calculator: Constant, growing (``--rampup-batch-size``) or stepwise (``--step-batch-size-schedule``, since 0.18).

    Returns:
        (position, size) pairs, the first at 0.
    """
    probe = copy.copy(calculator)

    def size(position: int) -> int:
        probe.update(position, False)
        return int(probe.get_current_running_global_batch_size())

    if schedule := getattr(calculator, "schedule", None):
        return tuple((int(position), size(int(position))) for position, _ in schedule)
    growing = getattr(calculator, "ramup_samples", None)
    if growing is None:
        return ((0, int(calculator.get_current_running_global_batch_size())),)
    # It grows, so the first position of each size is found by bisection.
    steps, last = [(0, size(0))], int(growing) + 1
    while steps[-1][1] < size(last):
        positions = range(steps[-1][0], last + 1)
        first = positions[bisect_right(positions, steps[-1][1], key=size)]
        steps.append((first, size(first)))
    return tuple(steps)
