import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_nca import NCAConfig
from megatron_nca.errors import ConfigError


@st.composite
def configs(draw):
    patch = draw(st.integers(1, 4))
    colors = draw(st.integers(2, 64 if patch < 3 else {3: 9, 4: 3}[patch]))
    lo = draw(st.floats(0, 1))
    return NCAConfig(
        grid=patch * draw(st.integers(2, 16)),
        colors=colors,
        patch=patch,
        temperature=draw(st.one_of(st.just(0), st.floats(1e-4, 10))),
        identity_bias=draw(st.floats(-10, 10)),
        burn_in=draw(st.integers(0, 50)),
        dt=draw(st.integers(1, 8)),
        gzip=draw(st.one_of(st.none(), st.just((lo, lo + 0.1)))),
    )


def test_defaults_are_the_papers():
    config = NCAConfig()
    assert (config.patch_tokens, config.vocab_size, config.frame_length) == (10_000, 10_002, 38)


@given(configs())
def test_uri_reads_back(config):
    assert NCAConfig.from_uri(config.to_uri()) == config


@given(configs(), configs())
def test_uris_are_equal_exactly_if_configs_are(one, other):
    assert (one.to_uri() == other.to_uri()) == (one == other)


def test_settings_that_compare_equal_have_one_uri():
    plain = NCAConfig(temperature=1, identity_bias=0, gzip=(0, 1))
    assert NCAConfig(temperature=1.0, identity_bias=-0.0, gzip=(0.0, 1.0)).to_uri() == plain.to_uri()


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        NCAConfig().grid = 3


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"grid": 1}, "between 2 and 256"),
        ({"grid": 257}, "between 2 and 256"),
        ({"grid": 12.0}, "not a whole number"),
        ({"grid": True}, "not a whole number"),
        ({"colors": 1}, "between 2 and 64"),
        ({"colors": 65}, "between 2 and 64"),
        ({"patch": 0}, "between 1 and 12"),
        ({"patch": 5}, "divisor of 12"),
        ({"patch": 4, "colors": 10}, "smaller patch or fewer colors"),
        ({"temperature": -1e-4}, "between 0 and 100"),
        ({"temperature": float("nan")}, "finite"),
        ({"temperature": "hot"}, "finite"),
        ({"identity_bias": float("inf")}, "finite"),
        ({"burn_in": -1}, "between 0"),
        ({"dt": 0}, "between 1"),
        ({"gzip": 0.5}, "give (lo, hi)"),
        ({"gzip": (0.5,)}, "give (lo, hi)"),
        ({"gzip": (0.6, 0.5)}, "first bound must be below"),
        ({"gzip": (-0.1, 0.5)}, "between 0"),
    ],
)
def test_an_unusable_setting_is_refused_by_name(settings, remedy):
    with pytest.raises(ConfigError) as raised:
        NCAConfig(**settings)
    assert raised.value.field in settings
    assert remedy in str(raised.value)


@pytest.mark.parametrize("uri", ["grid=12", "nca:grid", "nca:grid=", "nca:=12", "nca:grid=12,,", "nca:tokens=1M"])
def test_a_uri_of_another_form_is_refused(uri):
    with pytest.raises(ConfigError):
        NCAConfig.from_uri(uri)
