from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_nca.data.schedule import Leaf, Node, PhaseSplit, Schedule, ShareSplit, blend_tree

shares = st.fractions(0, 1, max_denominator=997)
weights = st.fractions(Fraction(1, 997), 10, max_denominator=997)


def exact_counts(tree, samples):
    """What each source should have of the first ``samples``, without rounding anywhere."""
    if isinstance(tree, Leaf):
        return {tree.source: Fraction(samples)}
    first = _integral(tree.split, Fraction(samples))
    counts = exact_counts(tree.first, first)
    for source, count in exact_counts(tree.second, samples - first).items():
        counts[source] = counts.get(source, 0) + count
    return counts


def _integral(split, n):
    if isinstance(split, ShareSplit):
        return split.share * n
    if n <= split.hold:
        return n
    x = min(n - split.hold, split.ramp)
    loss = (1 - split.floor) * x * x / (2 * split.ramp) if split.ramp else 0
    return split.hold + x - loss + split.floor * max(n - split.hold - split.ramp, 0)


@st.composite
def curricula(draw):
    """Phases that fade and stay, then a blend: at most two splits mix at a time, as in the bound of the docstring."""
    members = draw(st.integers(1, 4))
    phases = draw(st.integers(0, 3))
    tree = blend_tree([(phases + place, draw(weights)) for place in range(members)])
    for source in reversed(range(phases)):
        last = source == phases - 1 and members <= 2
        floor = draw(shares) if last else Fraction(0)
        ramp = 2 * draw(st.integers(0, 60)) if last else 0
        tree = Node(PhaseSplit(draw(st.integers(1, 80)), ramp, floor), Leaf(source), tree)
    return Schedule(tree, phases + members)


@st.composite
def deep_curricula(draw):
    members, phases = draw(st.integers(1, 7)), draw(st.integers(0, 4))
    tree = blend_tree([(phases + place, draw(weights)) for place in range(members)])
    for source in reversed(range(phases)):
        split = PhaseSplit(draw(st.integers(1, 80)), draw(st.integers(0, 60)), draw(shares))
        tree = Node(split, Leaf(source), tree)
    return Schedule(tree, phases + members)


@given(curricula())
def test_every_prefix_is_within_one_of_the_exact_share(schedule):
    for samples in range(300):
        exact = exact_counts(schedule.root, samples)
        for source, count in enumerate(schedule.counts(samples)):
            assert abs(count - exact[source]) <= 1


@given(deep_curricula())
def test_each_sources_indices_are_consecutive(schedule):
    seen = [0] * schedule.sources
    for position in range(300):
        source, index = schedule.locate(position)
        assert index == seen[source]
        seen[source] += 1
        assert tuple(seen) == schedule.counts(position + 1)


@given(deep_curricula())
def test_no_source_strays_by_more_than_the_depth_of_its_mixture(schedule):
    depth = _depth(schedule.root)
    for samples in range(0, 300, 7):
        exact = exact_counts(schedule.root, samples)
        for source, count in enumerate(schedule.counts(samples)):
            assert abs(count - exact[source]) <= Fraction(depth, 2)


def _depth(tree):
    return 0 if isinstance(tree, Leaf) else 1 + max(_depth(tree.first), _depth(tree.second))


@given(curricula(), st.integers(0, 10**15))
def test_a_far_position_costs_no_more_than_a_near_one(schedule, position):
    source, index = schedule.locate(position)
    assert schedule.counts(position)[source] == index


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


def test_a_blend_of_equal_shares_takes_turns():
    schedule = Schedule(blend_tree([(0, Fraction(1)), (1, Fraction(1))]), 2)
    assert sorted({schedule.locate(position)[0] for position in (10, 11)}) == [0, 1]
    assert schedule.shares(0, 10) == (Fraction(1, 2), Fraction(1, 2))
