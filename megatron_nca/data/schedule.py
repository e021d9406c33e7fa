"""The schedule: position in the run -> (source, index within the source), in closed form.

Stages are a chain. Each looks at the positions n = 0, 1, 2, ... that those before it leave, and has an exact share integral
I(n), which grows by 0 to 1 a position:

    I(n) = n                                         while n <= hold
         = hold + x - (1 - floor) x**2 / (2 ramp)    x = n - hold <= ramp, the share falling linearly to the floor
         = hold + ramp (1 + floor) / 2 + floor (n - hold - ramp)       afterwards

Among its first n positions the stage has K(n) = floor(I(n) + 1/2), which its mixture deals out to sources, and what follows
has the others. So position n is the stage's exactly if K(n + 1) > K(n). That is O(1), needs no table, and gives each source the
indices 0, 1, 2, ... in order: its index is the sum of its counts in all stages that have begun. A source is off its exact share
by at most 1/2 where one stage fades into another, and inside a mixture by what ``mixture`` says of it; a source of several
stages by the sum over those. Numbers are Python integers and fractions, so nothing rounds, at any length.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Protocol

from megatron_nca.data.mixture import Mixture


@dataclass(frozen=True)
class PhaseSplit:
    """Share 1 over ``hold`` positions, falling linearly to ``floor`` over ``ramp`` more, ``floor`` afterwards."""

    hold: int
    ramp: int = 0
    floor: Fraction = Fraction(0)

    def integral(self, n: int) -> Fraction:
        """Return the exact number of the first ``n`` positions that the phase should have."""
        falling = min(max(n - self.hold, 0), self.ramp)
        after = max(n - self.hold - self.ramp, 0)
        loss = (1 - self.floor) * Fraction(falling**2, 2 * max(self.ramp, 1))
        return min(n, self.hold) + falling - loss + self.floor * after

    def count(self, n: int) -> int:
        """Return how many of the first ``n`` positions the phase has."""
        if n <= self.hold:
            return n
        return _round_half_up(self.integral(n))

    @property
    def total(self) -> int | None:
        """All positions that the phase will ever have, or None where its floor keeps it going."""
        return None if self.floor else self.count(self.hold + self.ramp)


@dataclass(frozen=True)
class Link:
    """A stage of the chain.

    Attributes:
        mixture: Deals its positions out to sources.
        split: Share of the link, or None for every position that is left.
    """

    mixture: Mixture
    split: PhaseSplit | None = None

    def count(self, n: int) -> int:
        """Return how many of its first ``n`` positions the stage has itself."""
        return n if self.split is None else self.split.count(n)


class AnySchedule(Protocol):
    """What a plan, a dataset and the scalars ask of a schedule."""

    @property
    def sources(self) -> int:
        """Number of sources; they are called 0 .. sources - 1."""

    def locate(self, position: int) -> tuple[int, int]:
        """Return (source, index within the source) of the sample at ``position``, counted from 0."""

    def counts(self, samples: int) -> tuple[int, ...]:
        """Return how many of the first ``samples`` positions each source has."""

    def reached(self, samples: int) -> tuple[int, ...]:
        """Return at which of its samples each source would go on after the first ``samples`` positions."""

    def shares(self, position: int, window: int = 1) -> tuple[Fraction, ...]:
        """Return each source's share of ``window`` positions from ``position`` on."""


class _Shares:
    """Shares, out of counts."""

    def shares(self: AnySchedule, position: int, window: int = 1) -> tuple[Fraction, ...]:
        """Return each source's share of ``window`` positions from ``position`` on."""
        before, after = self.counts(position), self.counts(position + window)
        return tuple(Fraction(last - first, window) for first, last in zip(before, after, strict=True))


@dataclass(frozen=True)
class Schedule(_Shares):
    """A chain of stages.

    Attributes:
        links: Links in order; the last one has every position that is left, or enough for the run.
        sources: Number of sources; mixtures name them 0 .. sources - 1.
    """

    links: tuple[Link, ...]
    sources: int

    @cached_property
    def _ended(self) -> tuple[list[int], list[int], list[dict[int, int]]]:
        """What is fixed once the first k stages are over, k = 0, 1, ...

        Returns:
            The first positions from which on they are; their positions in all; each source's among them, sparse: what changed
            with the last of them.
        """
        ends, bases, totals = [0], [0], [dict[int, int]()]
        for link in self.links[:-1]:
            total = link.split.total if link.split else None
            if link.split is None or total is None:
                break
            # What the first stages leave of n positions is n - base once they are over, so it reaches the reach there.
            ends.append(max(ends[-1], link.split.hold + link.split.ramp + bases[-1]))
            bases.append(bases[-1] + total)
            totals.append(dict(link.mixture.counts(total)))
        return ends, bases, totals

    @cached_property
    def _given(self) -> dict[int, tuple[list[int], list[int]]]:
        """For each source of a stage that ends: how many have ended, in order, and what they had given by then."""
        given: dict[int, tuple[list[int], list[int]]] = {}
        for number, counts in enumerate(self._ended[2]):
            for source, count in counts.items():
                numbers, sums = given.setdefault(source, ([], []))
                sums.append(count + (sums[-1] if sums else 0))
                numbers.append(number)
        return given

    def _over(self, position: int) -> int:
        """Return how many of the first stages are over at a position."""
        return bisect_right(self._ended[0], position) - 1

    def _given_by(self, source: int, over: int) -> int:
        numbers, sums = self._given.get(source, ([], []))
        place = bisect_right(numbers, over)
        return sums[place - 1] if place else 0

    def locate(self, position: int) -> tuple[int, int]:
        """Return (source, index within the source) of the sample at ``position``, counted from 0."""
        over = self._over(position)
        left = position - self._ended[1][over]
        source: int | None = None
        others: list[tuple[Mixture, int]] = []
        index = 0
        for link in self.links[over:]:
            before = link.count(left)
            if source is None and link.count(left + 1) > before:
                source, index = link.mixture.locate(before)
            elif before:
                others.append((link.mixture, before))
            left -= before
            if source is not None and left <= 0:
                break
        assert source is not None
        return source, index + self._given_by(source, over) + sum(mixture.count(source, n) for mixture, n in others)

    def counts(self, samples: int) -> tuple[int, ...]:
        """Return how many of the first ``samples`` positions each source has."""
        over = self._over(samples)
        left = samples - self._ended[1][over]
        totals = [0] * self.sources
        for ended in self._ended[2][: over + 1]:
            for source, count in ended.items():
                totals[source] += count
        for link in self.links[over:]:
            own = link.count(left)
            for source, count in link.mixture.counts(own) if own else ():
                totals[source] += count
            left -= own
            if left <= 0:
                break
        return tuple(totals)

    def reached(self, samples: int) -> tuple[int, ...]:
        """Return at which of its samples each source would go on: it has given all before it."""
        return self.counts(samples)


@dataclass(frozen=True)
class AmendedSchedule(_Shares):
    """One schedule up to a position, another from there on, whose sources go on where they were left.

    Attributes:
        before: Up to the position.
        begin: The position.
        after: Schedule from there on, counted from 0.
        first: Index at which ``after`` goes on with each source.
        sources: Number of sources of both.
    """

    before: AnySchedule
    begin: int
    after: AnySchedule
    first: tuple[int, ...]

    @property
    def sources(self) -> int:
        """Number of sources of both; those that are new come last."""
        return self.after.sources

    def locate(self, position: int) -> tuple[int, int]:
        """Return (source, index within the source) of the sample at ``position``."""
        if position < self.begin:
            return self.before.locate(position)
        source, index = self.after.locate(position - self.begin)
        return source, self.first[source] + index

    def counts(self, samples: int) -> tuple[int, ...]:
        """Return how many of the first ``samples`` positions each source has."""
        earlier = self.before.counts(min(samples, self.begin))
        later = self.after.counts(max(samples - self.begin, 0))
        return tuple(one + other for one, other in zip(_padded(earlier, len(later)), later, strict=True))

    def reached(self, samples: int) -> tuple[int, ...]:
        """Return at which of its samples each source would go on; a member of an earlier blend has given some uncounted."""
        if samples < self.begin:
            return _padded(self.before.reached(samples), self.sources)
        later = self.after.counts(samples - self.begin)
        return tuple(one + other for one, other in zip(self.first, later, strict=True))


def _padded(counts: tuple[int, ...], sources: int) -> tuple[int, ...]:
    return (*counts, *(0 for _ in range(sources - len(counts))))


def position_after(count: Count, wanted: int, least: int = 0) -> int:
    """Return the first number of samples, from ``least`` on, of which ``count`` leaves ``wanted``; it grows by 0 or 1 each."""
    reach = max(wanted, least, 1)
    while count(reach) < wanted:
        reach *= 2
    return bisect_left(range(reach + 1), wanted, least, key=count)


class Count(Protocol):
    """A number of samples -> how many of them there are of something."""

    def __call__(self, samples: int, /) -> int:
        """Return it."""


def _round_half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)
