from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_nca.data.mixture import mixture_of
from megatron_nca.data.schedule import AmendedSchedule, Link, PhaseSplit, Schedule

shares = st.fractions(0, 1, max_denominator=997)
weights = st.fractions(Fraction(1, 997), 10, max_denominator=997)


class Recipe:
    """A random schedule, and the shares that it was made of."""

    def __init__(self, stages, sources):
        self.stages, self.sources = stages, sources
        links = [Link(mixture_of(list(mixed.items())), split) for mixed, split in stages]
        self.schedule = Schedule(tuple(links), sources)

    def exact(self, samples):
        """What each source should have of the first ``samples``, without rounding anywhere."""
        totals, left = [Fraction(0)] * self.sources, Fraction(samples)
        for mixed, split in self.stages:
            own = left if split is None else integral(split, left)
            for source, weight in mixed.items():
                totals[source] += own * weight / sum(mixed.values())
            left -= own
        return totals

    def reach(self):
        """A little more than what all stages hold and fade over."""
        return sum(split.hold + split.ramp for _, split in self.stages if split) + 60


def integral(split, n):
    if n <= split.hold:
        return n
    x = min(n - split.hold, split.ramp)
    loss = (1 - split.floor) * x * x / (2 * split.ramp) if split.ramp else 0
    return split.hold + x - loss + split.floor * max(n - split.hold - split.ramp, 0)


@st.composite
def recipes(draw, sources=5, stages=5, members=4):
    """Stages that fade and stay, over sources that come back."""
    made = []
    for _ in range(draw(st.integers(0, stages))):
        split = PhaseSplit(draw(st.integers(1, 60)), draw(st.one_of(st.just(0), st.integers(0, 50))),
                           draw(st.one_of(st.just(Fraction(0)), shares)))  # fmt: skip
        made.append((draw(mixtures(sources, members)), split))
    made.append((draw(mixtures(sources, members)), None))
    return Recipe(made, sources)


def mixtures(sources, members):
    return st.dictionaries(st.integers(0, sources - 1), weights, min_size=1, max_size=members)


def count_one_by_one(schedule, positions, seen=None):
    """Ask for every position; returns what was seen of each source, and checks that it came in order."""
    seen = [0] * schedule.sources if seen is None else [*seen, *[0] * (schedule.sources - len(seen))]
    for position in positions:
        source, index = schedule.locate(position)
        assert index == seen[source], f"position {position}: source {source} skips or repeats"
        seen[source] += 1
    return seen


@pytest.mark.slow
@settings(max_examples=300)
@given(recipes())
def test_each_sources_indices_are_consecutive_over_all_stages(recipe):
    seen = count_one_by_one(recipe.schedule, range(recipe.reach()))
    assert tuple(seen) == recipe.schedule.counts(recipe.reach())


@settings(max_examples=100)
@given(recipes(), st.data())
def test_counts_are_what_was_located(recipe, data):
    samples = data.draw(st.integers(0, recipe.reach()))
    location = [recipe.schedule.locate(position)[0] for position in range(samples)]
    assert recipe.schedule.counts(samples) == tuple(location.count(source) for source in range(recipe.sources))


@settings(max_examples=200)
@given(recipes())
def test_no_source_strays_by_more_than_the_sum_over_its_stages(recipe):
    """At most 1 within a stage of up to four sources, and 1/2 for the stage itself and for each before it."""
    for samples in range(0, recipe.reach(), 7):
        exact = recipe.exact(samples)
        for source, count in enumerate(recipe.schedule.counts(samples)):
            stages = [place for place, (mixed, _) in enumerate(recipe.stages) if source in mixed]
            bound = sum(1 + Fraction(min(place + 1, len(recipe.stages) - 1), 2) for place in stages)
            assert abs(count - exact[source]) <= bound


@st.composite
def sharp(draw):
    """Stages without ramps, of up to four sources: what most curricula are."""
    recipe = draw(recipes())
    return Recipe([(mixed, split and PhaseSplit(split.hold)) for mixed, split in recipe.stages], recipe.sources)


@given(sharp())
def test_within_a_stage_every_source_is_within_one_of_its_exact_share(recipe):
    begin = 0
    for mixed, split in recipe.stages:
        before = recipe.schedule.counts(begin)
        for samples in range(split.hold if split else 200):
            now = recipe.schedule.counts(begin + samples)
            for source, weight in mixed.items():
                assert abs(now[source] - before[source] - samples * weight / sum(mixed.values())) <= 1
        begin += split.hold if split else 0


@given(recipes(), st.integers(0, 10**15))
def test_a_far_position_costs_no_more_than_a_near_one(recipe, position):
    source, index = recipe.schedule.locate(position)
    assert recipe.schedule.counts(position)[source] == index
    assert sum(recipe.schedule.counts(position)) == position


@st.composite
def histories(draw):
    """A chain of amendments at random positions, sources added on the way."""
    sources = draw(st.integers(1, 3))
    schedule, begins = draw(recipes(sources=sources, stages=3)).schedule, []
    for _ in range(draw(st.integers(1, 4))):
        sources += draw(st.integers(0, 2))
        begin = (begins[-1] if begins else 0) + draw(st.integers(0, 90))
        after = draw(recipes(sources=sources, stages=3)).schedule
        first = schedule.counts(begin)
        first += (0,) * (sources - len(first))
        schedule = AmendedSchedule(schedule, begin, after, first)
        begins.append(begin)
    return schedule, begins


@pytest.mark.slow
@settings(max_examples=300)
@given(histories())
def test_amendments_leave_no_gap_and_no_repeat_in_any_source(history):
    schedule, begins = history
    reach = begins[-1] + 150
    seen = count_one_by_one(schedule, range(reach))
    assert tuple(seen) == schedule.counts(reach)
    for begin in begins:
        location = [schedule.locate(position)[0] for position in range(begin)]
        assert schedule.counts(begin) == tuple(location.count(source) for source in range(schedule.sources))


@given(st.integers(0, 10**12), st.integers(1, 10**6), shares)
def test_a_phase_holds_its_positions_and_ends_at_its_floor(hold, ramp, floor):
    split = PhaseSplit(hold, 2 * ramp, floor)
    assert split.count(hold) == hold
    assert split.integral(hold + 2 * ramp) == hold + ramp * (1 + floor)
    steady = split.integral(hold + 2 * ramp + 10**6) - split.integral(hold + 2 * ramp)
    assert steady == floor * 10**6


@settings(max_examples=30)
@given(st.integers(1, 50), st.integers(1, 50), shares)
def test_a_share_falls_linearly(hold, ramp, floor):
    split = PhaseSplit(hold, ramp, floor)
    for x in range(ramp):
        middle = 1 - (1 - floor) * Fraction(2 * x + 1, 2 * ramp)
        assert split.integral(hold + x + 1) - split.integral(hold + x) == middle


def test_shares_are_those_of_the_window():
    recipe = Recipe([({0: Fraction(1)}, PhaseSplit(10)), ({0: Fraction(1), 1: Fraction(1)}, None)], 2)
    assert recipe.schedule.shares(0, 10) == (1, 0)
    assert recipe.schedule.shares(10, 10) == (Fraction(1, 2), Fraction(1, 2))
