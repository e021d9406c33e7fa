"""Whatever stands in a data path, what comes out is a curriculum or one error of ours."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_nca.data.amending import Amendment, amend
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training
from megatron_nca.data.data_path import read_blend
from megatron_nca.errors import NCAError

KEYS = [
    "tokens",
    "ramp",
    "floor",
    "batch",
    "gzip",
    "grid",
    "patch",
    "colors",
    "temperature",
    "burn_in",
    "dt",
    "rules",
    "trajectory",
]
KEYS += ["vocab", "loss", "seed", "rare", "domain", "identity_bias", "nonsense", ""]
ODD = [
    "nan",
    "inf",
    "-inf",
    "0",
    "-0.5",
    "1e400",
    "1e-320",
    "0.999999999999999999",
    "9" * 19,
    "9" * 400,
    "1e999",
    "\0",
    "\ud800",
]
ODD += [
    "",
    " ",
    "1K",
    "1T",
    "0.5-1.0",
    "1-0",
    "nan-nan",
    "none",
    "auto:",
    "auto:/a",
    "offset:-1",
    "٣",
    "１",
    "0x10",
    "1_000",
    "=",
    ",",
]
VALUES = st.one_of(st.sampled_from(ODD), st.text(max_size=8), st.integers().map(str), st.floats().map(str))
PAIRS = st.tuples(st.sampled_from(KEYS), VALUES).map("=".join)
ENTRIES = st.tuples(st.sampled_from(["nca:", "phase:", "NCA:", " nca:"]), st.lists(PAIRS, max_size=4).map(",".join)).map(
    "".join
)
WORDS = st.lists(
    st.one_of(ENTRIES, VALUES, st.sampled_from(["/a", "/b", "nca:", "nca:tokens=1M", "phase:", "phase:tokens=1M"])),
    min_size=1,
    max_size=7,
)


@settings(max_examples=400, deadline=None)
@given(WORDS)
def test_any_words(words):
    try:
        read_blend((words, None))
    except NCAError as error:
        assert str(error)


WORDS_OF_OURS = st.lists(
    st.one_of(
        st.tuples(
            st.just("phase:"),
            st.dictionaries(
                st.sampled_from(["tokens", "ramp", "floor", "batch"]),
                st.one_of(st.sampled_from(ODD), st.integers(1, 10**5).map(str), st.sampled_from(["0.5", "1K", "8", "0", "1T"])),
                max_size=4,
            ).map(lambda keys: ",".join(f"{key}={value}" for key, value in keys.items())),
        ).map("".join),
        st.sampled_from(["/a", "/b", "/c", "nca:grid=4", "nca:tokens=1K,batch=4", "0.7", "0.3", "1e400"]),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=400, deadline=None)
@given(WORDS_OF_OURS, WORDS_OF_OURS, st.integers(1, 4096), st.integers(1, 64), st.integers(0, 10**6))
def test_any_phases_laid_out_and_amended(words, others, sequence, batch, consumed):
    try:
        plan = plan_training(read_blend((words, None)), sequence, 10**6, BatchBoundaries(batch))
        plan.describe()
        begin = plan.batches.round_up(consumed)
        changed = Amendment(read_blend((others, None)), begin, dict.fromkeys(plan.curriculum.prefixes, ((10**7,), 0)))
        after = amend(plan, changed, begin + 10**6, BatchBoundaries(batch, begin))
        assert sum(after.schedule.counts(begin + 100)) == begin + 100
    except NCAError as error:
        assert str(error)


@pytest.mark.parametrize("weight", ["nan", "inf", "0", "-0.5", "1e-320", "1e400"])
@pytest.mark.parametrize("rest", [["nca:", "1", "/a"], ["nca:tokens=1M", "/a"], ["/a", "1", "/b", "1", "nca:"]])
def test_a_weight_that_is_none_is_refused_wherever_it_stands(weight, rest):
    with pytest.raises(NCAError, match="a weight must be positive"):
        read_blend(([weight, *rest], None))


def test_a_floor_beyond_what_counts_hold_is_refused():
    with pytest.raises(NCAError, match="nine decimals at most"):
        read_blend((["nca:tokens=1M,ramp=1M,floor=0.999999999999999999", "/a"], None))
