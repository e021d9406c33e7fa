import numpy as np
import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.errors import NCAError

BANDED = NCAConfig(gzip=(0.5, 1.0))


def test_a_trajectory_is_the_same_alone_and_in_company():
    source = NCASource(BANDED)
    together = source.tokens_batch([5, 900_000_000_000, 0, 5], 400)
    for row, index in zip(together, [5, 900_000_000_000, 0, 5], strict=True):
        np.testing.assert_array_equal(row, NCASource(BANDED).tokens(index, 400))


def test_a_shorter_request_is_a_prefix():
    source = NCASource(BANDED)
    whole = source.tokens(7, 1025)
    for length in (0, 1, 2, 37, 38, 39, 500):
        np.testing.assert_array_equal(source.tokens(7, length), whole[:length])


def test_tokens_are_int32_within_the_vocabulary():
    tokens = NCASource(BANDED).tokens(0, 1025)
    assert tokens.dtype == np.int32
    assert 0 <= tokens.min() < tokens.max() == BANDED.vocab_size - 1


def test_tokens_do_not_change_between_releases():
    """If this fails, every stored run would go on with other samples: raise STREAM_VERSION only for a good reason."""
    import hashlib

    drawn = NCASource(BANDED, seed=1234).tokens_batch(range(4), 1025)
    assert hashlib.sha256(drawn.astype("<i4").tobytes()).hexdigest() == (
        "94b22cff7bf9aa09bd5f6eccb88c3ac8d957899de64f85b92b76d75a2f069370"
    )


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"split": "valid"}, {"split": "test"}, {"stream": 1}, {"rules": 1000}],
    ids=lambda other: next(iter(other)),
)
def test_sources_that_differ_in_anything_share_no_rule(other):
    default = NCASource(NCAConfig())
    different = NCASource(NCAConfig(), **other)
    assert default.key != different.key
    assert (default.grids(0, 3) != different.grids(0, 3)).any()


def test_a_pool_visits_each_rule_once_a_pass_from_new_states():
    source = NCASource(NCAConfig(burn_in=0), rules=3)
    engine, seen = source.engine, []
    source.engine = type(
        "Spy",
        (),
        {
            "find_rules": staticmethod(engine.find_rules),
            "grids": lambda self, rules, *rest: seen.extend(rules.tolist()) or engine.grids(rules, *rest),
        },
    )()
    grids = source.grids_batch(range(7), 1)
    assert seen == [0, 1, 2, 0, 1, 2, 0]
    assert (grids[0] != grids[3]).any()


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"split": "training"}, "train, valid, test"),
        ({"rules": 0}, "at least 1"),
        ({"engine": "cuda"}, "must be one of"),
    ],
)
def test_an_unusable_argument_is_refused(arguments, remedy):
    with pytest.raises(NCAError, match=remedy):
        NCASource(NCAConfig(), **arguments)


@pytest.mark.parametrize("index", [-1, 2**48])
def test_an_index_out_of_range_is_refused(index):
    with pytest.raises(NCAError, match="must lie in"):
        NCASource(NCAConfig()).tokens(index, 10)


def test_no_frames_are_refused():
    with pytest.raises(NCAError, match="at least 1"):
        NCASource(NCAConfig()).grids(0, 0)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_no_candidates_are_no_trouble(engine):
    nothing = np.zeros(0, dtype=np.int64)
    source = NCASource(NCAConfig(gzip=(0.5, 1.0)), engine=engine)
    assert source.engine.accepted(nothing, nothing).shape == (0,)
