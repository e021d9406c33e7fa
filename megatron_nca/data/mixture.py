"""A mixture of constant shares: position n = 0, 1, 2, ... -> (source, index within the source), in closed form.

It is a tree of two-way splits. Among its first n positions the first branch of a split of share w has

    K(n) = floor(w n + 1/2)

and the second the others, so position n belongs to the first branch exactly if K(n + 1) > K(n); its index there is K(n), and
n - K(n) otherwise. A branch whose own positions are off by d is off by at most 1/2 + w d inside. Up to four sources none is off
by more than one sample.

More than ``SEVERAL`` sources stand in a tree that is nowhere written down (``WideMixture``): the sources by falling weight, cut
where the two parts weigh most alike. No part of several sources then has more than two thirds of its parent, so d = 1/2 + 2/3 d
bounds it by 3/2, and a source by 2 samples, however many there are.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import lcm
from typing import Protocol, Union

SEVERAL = 64
Shares = Sequence[tuple[int, Fraction]]


class Mixture(Protocol):
    """What a schedule asks of a mixture."""

    def locate(self, position: int) -> tuple[int, int]:
        """Return (source, index within the source) of a position."""

    def count(self, source: int, samples: int) -> int:
        """Return how many of the first ``samples`` positions a source has; 0 for one that is not in the mixture."""

    def counts(self, samples: int) -> Iterator[tuple[int, int]]:
        """Yield (source, how many of the first ``samples`` positions it has) for every source."""


def mixture_of(shares: Shares) -> Mixture:
    """Return the mixture of (source, weight) pairs, at least one; weights are positive and need not sum to 1."""
    if len(shares) <= SEVERAL:
        return TreeMixture(blend_tree(shares))
    return WideMixture(shares)


def shares_of(weights: Sequence[float]) -> list[tuple[int, Fraction]]:
    """Return a blend's weights, as decimal numbers, for ``mixture_of``; a member's place is its source number."""
    return [(member, Fraction(repr(float(weight)))) for member, weight in enumerate(weights)]


@dataclass(frozen=True)
class ShareSplit:
    """A constant share."""

    share: Fraction

    def integral(self, n: int) -> Fraction:
        """Return the exact number of the first ``n`` positions that the first branch should have."""
        return self.share * n

    def count(self, n: int) -> int:
        """Return how many of the first ``n`` positions the first branch has."""
        return rounded_share(self.share.numerator, self.share.denominator, n)


def rounded_share(part: int, whole: int, n: int) -> int:
    """Return floor(n part / whole + 1/2)."""
    return (2 * part * n + whole) // (2 * whole)


@dataclass(frozen=True)
class Leaf:
    """All positions belong to one source."""

    source: int


@dataclass(frozen=True)
class Node:
    """A split and its two branches."""

    split: ShareSplit
    first: Tree
    second: Tree


Tree = Union[Leaf, Node]


@dataclass(frozen=True)
class TreeMixture:
    """A few sources.

    Attributes:
        root: The tree of splits.
    """

    root: Tree

    def locate(self, position: int) -> tuple[int, int]:
        """Return (source, index within the source) of a position."""
        tree = self.root
        while isinstance(tree, Node):
            before = tree.split.count(position)
            if tree.split.count(position + 1) > before:
                tree, position = tree.first, before
            else:
                tree, position = tree.second, position - before
        return tree.source, position

    def count(self, source: int, samples: int) -> int:
        """Return how many of the first ``samples`` positions a source has."""
        return sum(count for other, count in self.counts(samples) if other == source)

    def counts(self, samples: int) -> Iterator[tuple[int, int]]:
        """Yield (source, how many of the first ``samples`` positions it has)."""
        return _leaf_counts(self.root, samples)


def _leaf_counts(tree: Tree, samples: int) -> Iterator[tuple[int, int]]:
    while isinstance(tree, Node):
        count = tree.split.count(samples)
        yield from _leaf_counts(tree.first, count)
        tree, samples = tree.second, samples - count
    yield tree.source, samples


def blend_tree(shares: Shares) -> Tree:
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
        tree: A binary tree of share splits.
        off: What the tree's own number of positions can be off.
    """
    if isinstance(tree, Leaf):
        return off
    share, half = tree.split.share, Fraction(1, 2)
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


class WideMixture:
    """Any number of sources, kept as whole weights in falling order.

    Args:
        shares: (source, weight) pairs, each source once.
    """

    def __init__(self, shares: Shares) -> None:
        scale = lcm(*(weight.denominator for _, weight in shares))
        ordered = sorted(((-int(weight * scale), source) for source, weight in shares))
        self._sources = [source for _, source in ordered]
        self._sums = [0, *accumulate(-weight for weight, _ in ordered)]
        self._places = {source: place for place, source in enumerate(self._sources)}

    def _cut(self, low: int, high: int) -> int:
        """Return where a part of several sources is divided: where the halves weigh most alike."""
        middle = self._sums[low] + self._sums[high]
        cut = bisect_left(self._sums, middle, low + 1, high - 1, key=lambda weight: 2 * weight)
        before = cut - 1
        if before > low and middle - 2 * self._sums[before] <= 2 * self._sums[cut] - middle:
            return before
        return cut

    def _first_of(self, low: int, cut: int, high: int, samples: int) -> int:
        """Return how many of a part's first ``samples`` positions its heavier half has."""
        return rounded_share(self._sums[cut] - self._sums[low], self._sums[high] - self._sums[low], samples)

    def locate(self, position: int) -> tuple[int, int]:
        """Return (source, index within the source) of a position."""
        low, high = 0, len(self._sources)
        while high - low > 1:
            cut = self._cut(low, high)
            before = self._first_of(low, cut, high, position)
            if self._first_of(low, cut, high, position + 1) > before:
                high, position = cut, before
            else:
                low, position = cut, position - before
        return self._sources[low], position

    def count(self, source: int, samples: int) -> int:
        """Return how many of the first ``samples`` positions a source has; 0 for one that is not in the mixture."""
        place = self._places.get(source)
        if place is None:
            return 0
        low, high = 0, len(self._sources)
        while high - low > 1:
            cut = self._cut(low, high)
            before = self._first_of(low, cut, high, samples)
            low, high, samples = (low, cut, before) if place < cut else (cut, high, samples - before)
        return samples

    def counts(self, samples: int) -> Iterator[tuple[int, int]]:
        """Yield (source, how many of the first ``samples`` positions it has)."""
        parts = [(0, len(self._sources), samples)]
        while parts:
            low, high, samples = parts.pop()
            if high - low == 1:
                yield self._sources[low], samples
                continue
            cut = self._cut(low, high)
            before = self._first_of(low, cut, high, samples)
            parts += [(low, cut, before), (cut, high, samples - before)]
