"""The schedule: position in the run -> (source, index within the source), in closed form.

A schedule is a tree of two-way splits. A split looks at its own positions n = 0, 1, 2, ... and has an exact share integral
I(n), which grows by 0 to 1 a position; among its first n positions, the first branch has

    K(n) = floor(I(n) + 1/2)

and the second the others. So position n belongs to the first branch exactly if K(n + 1) > K(n); its index there is K(n),
and n - K(n) otherwise. That is O(1) a level, needs no table, and gives each source the indices 0, 1, 2, ... in order.

Phases are a chain of such splits, each one's second branch holding what follows it:

    I(n) = n                                         while n <= hold
         = hold + x - (1 - floor) x**2 / (2 ramp)    x = n - hold <= ramp, the share falling linearly to the floor
         = hold + ramp (1 + floor) / 2 + floor (n - hold - ramp)       afterwards

and the blend that ends the chain is a tree of constant shares, I(n) = share n. A source is off its exact share by at most
1/2 behind one split and by at most 1 behind two; deeper in the tree by at most 1/2 + share * (what its parent is off).
Numbers are Python integers and fractions, so nothing rounds, at any length.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Union


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


@dataclass(frozen=True)
class ShareSplit:
    """A constant share."""

    share: Fraction

    def integral(self, n: int) -> Fraction:
        """Return the exact number of the first ``n`` positions that the first branch should have."""
        return self.share * n

    def count(self, n: int) -> int:
        """Return how many of the first ``n`` positions the first branch has."""
        numerator, denominator = self.share.numerator, self.share.denominator
        return (2 * numerator * n + denominator) // (2 * denominator)


@dataclass(frozen=True)
class Leaf:
    """All positions belong to one source."""

    source: int


@dataclass(frozen=True)
class Node:
    """A split and its two branches."""

    split: PhaseSplit | ShareSplit
    first: Tree
    second: Tree


Tree = Union[Leaf, Node]


@dataclass(frozen=True)
class Schedule:
    """Which source each position of the run comes from.

    Attributes:
        root: The tree of splits.
        sources: Number of sources; leaves name them 0 .. sources - 1.
    """

    root: Tree
    sources: int

    def locate(self, position: int) -> tuple[int, int]:
        """Return (source, index within the source) of the sample at ``position``, counted from 0."""
        tree = self.root
        while isinstance(tree, Node):
            before = tree.split.count(position)
            if tree.split.count(position + 1) > before:
                tree, position = tree.first, before
            else:
                tree, position = tree.second, position - before
        return tree.source, position

    def counts(self, samples: int) -> tuple[int, ...]:
        """Return how many of the first ``samples`` positions each source has."""
        totals = [0] * self.sources
        for source, count in _leaf_counts(self.root, samples):
            totals[source] += count
        return tuple(totals)

    def shares(self, position: int, window: int = 1) -> tuple[Fraction, ...]:
        """Return each source's share of ``window`` positions from ``position`` on."""
        before, after = self.counts(position), self.counts(position + window)
        return tuple(Fraction(last - first, window) for first, last in zip(before, after, strict=True))


def blend_tree(shares: Sequence[tuple[int, Fraction]]) -> Tree:
    """Build the tree of a constant blend.

    Args:
        shares: (source, weight) pairs, at least one; weights are positive and need not sum to 1.

    Returns:
        Of a balanced and a Huffman tree the one in which no source can be further off its exact share. Up to four sources
        that is the balanced one, where none is off by more than 1.
    """
    weighted = [(Fraction(weight), Leaf(source)) for source, weight in shares]
    candidates = (_balanced(sorted(weighted, key=lambda pair: pair[0])), _huffman(weighted))
    return min((tree for _, tree in candidates), key=greatest_error)


def greatest_error(tree: Tree, off: Fraction = Fraction(0)) -> Fraction:
    """Bound how far a source of a constant blend can be off its exact share, in samples.

    Args:
        tree: Of share splits.
        off: What the tree's own number of positions can be off.
    """
    if isinstance(tree, Leaf):
        return off
    share = tree.split.share if isinstance(tree.split, ShareSplit) else Fraction(1)
    half = Fraction(1, 2)
    return max(greatest_error(tree.first, half + share * off), greatest_error(tree.second, half + (1 - share) * off))


Weighted = tuple[Fraction, Tree]


def _join(one: Weighted, other: Weighted) -> Weighted:
    total = one[0] + other[0]
    return total, Node(ShareSplit(one[0] / total), one[1], other[1])


def _balanced(members: Sequence[Weighted]) -> Weighted:
    if len(members) == 1:
        return members[0]
    middle = len(members) // 2
    return _join(_balanced(members[middle:]), _balanced(members[:middle]))


def _huffman(members: Sequence[Weighted]) -> Weighted:
    heap = [(weight, order, tree) for order, (weight, tree) in enumerate(members)]
    heapq.heapify(heap)
    for order in range(len(heap), 2 * len(heap) - 1):
        light, heavy = heapq.heappop(heap), heapq.heappop(heap)
        weight, tree = _join((heavy[0], heavy[2]), (light[0], light[2]))
        heapq.heappush(heap, (weight, order, tree))
    return heap[0][0], heap[0][2]


def _leaf_counts(tree: Tree, samples: int) -> Iterator[tuple[int, int]]:
    while isinstance(tree, Node):
        count = tree.split.count(samples)
        yield from _leaf_counts(tree.first, count)
        tree, samples = tree.second, samples - count
    yield tree.source, samples


def _round_half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)
