from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_nca.data.mixture import Leaf, ShareSplit, TreeMixture, WideMixture, blend_tree, greatest_error, mixture_of

weights = st.fractions(Fraction(1, 997), 10, max_denominator=997)
skewed = st.integers(0, 60).map(lambda power: Fraction(2) ** -power)


def mixtures(least=1, most=9):
    """Mixtures of both kinds of the same shares, with the shares."""
    lists = st.lists(st.one_of(weights, skewed), min_size=least, max_size=most)
    return lists.map(lambda found: list(enumerate(found)))


KINDS = [lambda shares: TreeMixture(blend_tree(shares)), WideMixture]


@pytest.mark.parametrize("kind", KINDS)
@given(mixtures())
def test_each_sources_indices_are_consecutive(kind, shares):
    mixture, seen = kind(shares), [0] * len(shares)
    for position in range(200):
        source, index = mixture.locate(position)
        assert index == seen[source]
        seen[source] += 1
        assert dict(mixture.counts(position + 1)) == dict(enumerate(seen))
        assert mixture.count(source, position + 1) == seen[source]


@pytest.mark.parametrize("kind", KINDS)
@given(mixtures(most=4))
def test_up_to_four_sources_stay_within_one_sample(kind, shares):
    total = sum(weight for _, weight in shares)
    for samples in range(0, 300, 3):
        for source, count in kind(shares).counts(samples):
            if kind is WideMixture:
                assert abs(count - samples * shares[source][1] / total) <= 2
            else:
                assert abs(count - samples * shares[source][1] / total) <= 1


@settings(max_examples=30)
@given(mixtures(least=65, most=300), st.integers(0, 10**15))
def test_however_many_sources_stay_within_two_samples(shares, samples):
    total = sum(weight for _, weight in shares)
    mixture = mixture_of(shares)
    assert isinstance(mixture, WideMixture)
    counts = dict(mixture.counts(samples))
    assert sum(counts.values()) == samples
    for source, weight in shares:
        assert abs(counts[source] - samples * weight / total) <= 2
        assert mixture.count(source, samples) == counts[source]


def test_a_source_that_is_not_in_the_mixture_has_nothing():
    assert mixture_of([(3, Fraction(1))]).count(2, 100) == 0
    assert WideMixture([(3, Fraction(1))]).count(2, 100) == 0


@given(st.lists(weights, min_size=1, max_size=9))
def test_a_tree_knows_how_far_off_it_can_be(found):
    shares, total = list(enumerate(found)), sum(found)
    bound = greatest_error(blend_tree(shares))
    for samples in range(0, 200, 7):
        for source, count in TreeMixture(blend_tree(shares)).counts(samples):
            assert abs(count - samples * found[source] / total) <= bound


def test_a_blend_of_equal_shares_takes_turns():
    mixture = mixture_of([(0, Fraction(1)), (1, Fraction(1))])
    assert sorted({mixture.locate(position)[0] for position in (10, 11)}) == [0, 1]


def test_a_split_rounds_half_up():
    assert [ShareSplit(Fraction(1, 2)).count(n) for n in range(5)] == [0, 1, 1, 2, 2]
    assert blend_tree([(7, Fraction(1))]) == Leaf(7)
