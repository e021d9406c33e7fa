import zlib

import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton import zlib_check
from megatron_nca.errors import EnvironmentMismatchError

BANDED = NCAConfig(gzip=(0.5, 1.0))


@pytest.fixture(autouse=True)
def fresh_check():
    zlib_check.check_zlib.cache_clear()
    yield
    zlib_check.check_zlib.cache_clear()


def lower_level(data, level=-1):
    return compress(data, 8)


def other_strategy(data, level=-1):
    packer = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_FILTERED)
    return packer.compress(data) + packer.flush()


compress = zlib.compress


def test_this_zlib_passes():
    zlib_check.check_zlib()


@pytest.mark.parametrize("other", [lower_level, other_strategy])
@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_another_implementation_is_refused_where_rules_are_filtered(monkeypatch, other, engine):
    monkeypatch.setattr(zlib, "compress", other)
    with pytest.raises(EnvironmentMismatchError, match="would accept other rules") as refusal:
        NCASource(BANDED, engine=engine)
    assert zlib.ZLIB_RUNTIME_VERSION in str(refusal.value)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_another_implementation_does_not_matter_without_a_filter(monkeypatch, engine):
    monkeypatch.setattr(zlib, "compress", lower_level)
    NCASource(NCAConfig(), engine=engine).tokens(0, 100)


def test_the_check_is_done_once(monkeypatch):
    NCASource(BANDED)
    monkeypatch.setattr(zlib_check, "sizes", lambda: pytest.fail("checked again"))
    NCASource(BANDED)


def test_the_inputs_are_as_long_as_probes_and_all_different():
    samples = zlib_check.samples()
    assert len(samples) == len(zlib_check.KNOWN_SIZES) == len(set(samples))
    assert {len(sample) for sample in samples} == {1440}
