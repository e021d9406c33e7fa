"""The formulas of docs/curriculum.md, written out as they stand there, against the code."""

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.data.mixture import Node, ShareSplit, TreeMixture, blend_tree, greatest_error

LENGTH = 100
SHARES = st.fractions(0, Fraction(9, 10), max_denominator=100)


def integral(n, h, r, f):
    x = n - h
    if n <= h:
        return Fraction(n)
    if x <= r:
        return h + x - (1 - f) * Fraction(x) ** 2 / (2 * r)
    return h + r * (1 + f) / Fraction(2) + f * (n - h - r)


def count(n, h, r, f):
    return floor(integral(n, h, r, f) + Fraction(1, 2))


@st.composite
def phases(draw):
    """(tokens, ramp, floor) of one to three phases; floors as an entry writes them."""
    one = st.tuples(st.integers(1, 20_000), st.integers(0, 10_000), st.integers(0, 9).map(lambda tenths: Fraction(tenths, 10)))
    return draw(st.lists(one, min_size=1, max_size=3))


def make_plan(parts, batch, samples):
    entries = [f"nca:grid=4,patch=2,tokens={tokens},ramp={ramp},floor={float(f)}" for tokens, ramp, f in parts]
    return plan_training(read_blend(([*entries, "/text"], None)), LENGTH, samples, BatchBoundaries(batch))


def seen(splits, n):
    """R of the page: positions that some phases leave among the first n."""
    for h, r, f in splits:
        n -= count(n, h, r, f)
    return n


@given(phases(), st.integers(1, 64))
def test_phases_end_and_give_samples_as_the_page_says(parts, batch):
    samples, splits = 3000, []
    plan = make_plan(parts, batch, samples)
    for (tokens, ramp, f), phase in zip(parts, plan.phases, strict=True):
        wanted, r = ceil(Fraction(tokens, LENGTH)), ceil(Fraction(ramp, LENGTH))
        r += r % 2
        end = phase.end
        assert end % batch == 0
        assert seen(splits, end) >= wanted
        assert seen(splits, end - batch) < wanted
        assert phase.ramp == r
        splits.append((seen(splits, end), r, f))
    rest, counts = samples, []
    for h, r, f in splits:
        counts.append(count(rest, h, r, f))
        rest -= counts[-1]
    assert plan.schedule.counts(samples) == (*counts, rest)


@given(phases(), st.integers(0, 2999))
def test_a_sample_belongs_to_the_source_whose_count_it_raises_and_has_that_count_as_its_index(parts, position):
    schedule = make_plan(parts, 8, 3000).schedule
    source, index = schedule.locate(position)
    before, after = schedule.counts(position), schedule.counts(position + 1)
    assert [new - old for old, new in zip(before, after, strict=True)] == [int(place == source) for place in range(len(before))]
    assert index == before[source]


@given(st.integers(1, 500), st.integers(1, 200), SHARES, st.integers(0, 2000))
def test_the_integral_is_the_sum_of_the_shares(h, half, f, n):
    r = 2 * half
    # The share falls linearly, so between two whole positions the midpoint's share is the exact mean.
    mean = sum(1 - (1 - f) * min(max(place - h + Fraction(1, 2), 0), r) / r if place < h + r else f for place in range(n))
    assert integral(n, h, r, f) == mean
    assert 0 <= integral(n + 1, h, r, f) - integral(n, h, r, f) <= 1


def test_the_worked_example():
    plan = plan_training(read_blend((["nca:tokens=164M", "/text"], None)), 1024, 512_000, BatchBoundaries(512))
    samples = ceil(Fraction(164_000_000, 1024))
    assert (samples, plan.phases[0].end) == (160_157, 160_256)
    assert (160_256 * 1024, 160_256 // 512) == (164_102_144, 313)


@given(st.fractions(Fraction(1, 100), Fraction(99, 100), max_denominator=1000), st.integers(0, 10**12))
def test_a_split_of_constant_share_rounds_its_product(w, n):
    assert ShareSplit(w).count(n) == floor(w * n + Fraction(1, 2))


@pytest.mark.parametrize("sources", [2, 3, 4])
@given(data=st.data())
def test_up_to_four_sources_are_off_by_one_sample_at_most(sources, data):
    weights = data.draw(st.lists(st.integers(1, 100), min_size=sources, max_size=sources))
    n = data.draw(st.integers(0, 10**6))
    tree = blend_tree([(place, Fraction(weight)) for place, weight in enumerate(weights)])
    assert isinstance(tree, Node)
    assert greatest_error(tree) <= 1
    for place, have in TreeMixture(tree).counts(n):
        weight = weights[place]
        assert abs(have - Fraction(weight * n, sum(weights))) <= 1
