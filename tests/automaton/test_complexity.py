import gzip
import io

import numpy as np
import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.complexity import PROBE_FRAMES, gzip_ratio, gzip_size
from megatron_nca.errors import ConfigError


@pytest.mark.parametrize("length", [0, 1, 1440, 100_000])
def test_size_is_that_of_a_gzip_file_without_a_name(length):
    data = np.random.default_rng(length).integers(0, 20, length).astype(np.uint8).tobytes()
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as file:
        file.write(data)
    assert gzip_size(data) == len(buffer.getvalue())


def test_ratio_is_of_patch_tokens_alone():
    config = NCAConfig()
    assert gzip_ratio(config, np.zeros((10, 12, 12), dtype=np.uint8)) == gzip_size(bytes(1440)) / 1440


@pytest.mark.parametrize(("band", "share"), [((0.5, 1.0), 0.46), ((0.4, 0.5), 0.18), ((0.3, 0.4), 0.09)])
def test_share_of_random_rules_in_a_band_is_the_papers(band, share):
    source = NCASource(NCAConfig(gzip=band))
    assert source.acceptance(3000) == pytest.approx(share, abs=0.03)


def test_every_rule_found_lies_in_the_band():
    source = NCASource(NCAConfig(gzip=(0.3, 0.4)), engine="reference")
    rules = np.arange(20)
    probes = source.engine.probe(rules, source.engine.find_rules(rules))
    ratios = [gzip_ratio(source.config, probe) for probe in probes]
    assert probes.shape == (20, PROBE_FRAMES, 12, 12)
    assert all(0.3 < ratio < 0.4 for ratio in ratios)


def test_the_first_candidate_in_the_band_is_taken():
    source = NCASource(NCAConfig(gzip=(0.5, 1.0)))
    attempts = source.engine.find_rules(np.arange(30))
    assert attempts.max() > 0
    for rule, attempt in enumerate(attempts):
        earlier = np.arange(attempt)
        assert not source.engine.accepted(np.full(attempt, rule), earlier).any()


def test_a_band_without_rules_is_told(monkeypatch):
    monkeypatch.setattr("megatron_nca.automaton.complexity.MAX_ATTEMPTS", 3)
    with pytest.raises(ConfigError, match=r"none of 3 random rules .* wider band"):
        NCASource(NCAConfig(gzip=(2.0, 3.0)), engine="reference").tokens(0, 100)
