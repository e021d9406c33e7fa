from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from megatron_nca import NCAConfig
from megatron_nca.automaton.config import SETTING_PARSERS
from megatron_nca.data.entry import ENTRY_PARSERS, NCAEntry, is_nca, parse_count, parse_entry
from megatron_nca.errors import EntryError

WEB = NCAConfig(gzip=(0.5, 1.0))


def test_nca_alone_is_the_papers_setting():
    assert parse_entry("nca:") == NCAEntry(text="nca:", config=WEB)


def test_every_key_is_read():
    text = (
        "nca:tokens=164M,ramp=10M,floor=0.05,gzip=0.2-0.6,grid=16,colors=8,patch=2,temperature=0.1,identity_bias=0.5,"
        "burn_in=3,dt=2,rules=16K,trajectory=2048,vocab=offset:500,loss=patches,seed=7"
    )
    assert parse_entry(text) == NCAEntry(
        text=text,
        config=NCAConfig(16, 8, 2, 0.1, 0.5, 3, 2, (0.2, 0.6)),
        tokens=164_000_000,
        ramp=10_000_000,
        floor=Fraction(1, 20),
        rules=16_000,
        trajectory=2048,
        vocab_offset=500,
        loss="patches",
        seed=7,
    )


@pytest.mark.parametrize(("domain", "band"), [("web", (0.5, 1.0)), ("math", (0.5, 1.0)), ("code", (0.3, 0.4))])
def test_a_domain_is_the_papers_band(domain, band):
    assert parse_entry(f"nca:domain={domain}").config.gzip == band


def test_gzip_goes_before_the_domains_band():
    assert parse_entry("nca:domain=code,gzip=0.1-0.2").config.gzip == (0.1, 0.2)
    assert parse_entry("nca:domain=code,gzip=none").config.gzip is None


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("12K", 12_000), ("1.5B", 1_500_000_000), ("0.25M", 250_000), ("1T", 10**12), ("2m", 2_000_000), ("1.0", 1)],
)
def test_counts_are_decimal(text, count):
    assert parse_count("tokens", text) == count


def test_white_space_around_pairs_is_allowed():
    assert parse_entry(" nca: tokens=1M , colors = 4 ").config.colors == 4


@pytest.mark.parametrize("prefix", ["/data/nca:x", "nca", "ncax:", "s3://nca:"])
def test_other_prefixes_are_no_entries(prefix):
    assert not is_nca(prefix)


WRONG = {
    "nca:token=164M": "the keys are",
    "nca:tokens": "key=value",
    "nca:tokens=": "key=value",
    "nca:tokens=1M,,colors=4": "key=value",
    "nca:164M": "key=value",
    "nca:tokens=1M,tokens=2M": "stands twice",
    "nca:tokens=0": "at least 1",
    "nca:tokens=-5M": "not a count",
    "nca:tokens=1.5": "not a count",
    "nca:tokens=164Mi": "not a count",
    "nca:tokens=1e9": "not a count",
    "nca:tokens=999999999T": "too large",
    "nca:ramp=1M": "give tokens=",
    "nca:floor=0.1": "give tokens=",
    "nca:tokens=1M,floor=1.5": "from 0 to 1",
    "nca:tokens=1M,floor=10%": "from 0 to 1",
    "nca:tokens=1M,ramp=x": "not a count",
    "nca:domain=prose": "web, math, code",
    "nca:gzip=0.5": "LO-HI",
    "nca:gzip=0.6-0.5": "below the second",
    "nca:gzip=a-b": "LO-HI",
    "nca:gzip=...-1": "not a number",
    "nca:grid=13": "divisor of 13",
    "nca:grid=twelve": "whole number",
    "nca:grid=1000": "between 2 and 256",
    "nca:colors=1": "between 2 and 64",
    "nca:patch=12": "smaller patch or fewer colors",
    "nca:temperature=hot": "not a number",
    "nca:temperature=-1": "between 0 and 100",
    "nca:identity_bias=nan": "not a number",
    "nca:burn_in=-1": "between 0",
    "nca:dt=0": "between 1",
    "nca:rules=0": "at least 1",
    "nca:rules=1T,rules=2": "stands twice",
    "nca:rules=900T": "too large a pool",
    "nca:trajectory=75": "at least 76",
    "nca:vocab=offset": "offset:N",
    "nca:vocab=offset:-1": "offset:N",
    "nca:vocab=own": "must be shared",
    "nca:loss=none": "frames, all, patches",
    "nca:seed=-1": "not be negative",
    "nca:seed=1.5": "whole number",
    "nca:tokens=1M;colors=4": "not a count",
    "nca:colors=٤": "whole number",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_entry_is_refused_with_its_remedy(text):
    with pytest.raises(EntryError) as raised:
        parse_entry(text)
    assert repr(text) in str(raised.value)
    assert WRONG[text] in str(raised.value)


keys = st.one_of(st.sampled_from([*ENTRY_PARSERS, *SETTING_PARSERS]), st.text(max_size=8))
values = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"\d{0,20}(\.\d{0,20})?[KMBTkmbtx]?", fullmatch=True),
    st.floats().map(repr),
    st.sampled_from(["none", "shared", "offset:10", "0.5-1.0", "web", "frames", "-0", "1e-400", "²", "١"]),
)
entries = st.one_of(
    st.text(max_size=40).map("nca:".__add__),
    st.lists(st.tuples(keys, values).map("=".join), max_size=6).map(lambda pairs: "nca:" + ",".join(pairs)),
)


@given(entries)
@example("nca:gzip=1e999-1e999")
@example("nca:floor=.")
@example("nca:tokens=²")
def test_any_text_is_an_entry_or_an_entry_error(text):
    try:
        entry = parse_entry(text)
    except EntryError as error:
        assert repr(text) in str(error)
    else:
        assert entry.trajectory >= 2 * entry.config.frame_length
        assert entry.config == NCAConfig.from_uri(entry.config.to_uri())
