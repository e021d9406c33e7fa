"""The process is the released code's: distributions measured on it (tests/data/reference) hold for ours."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.complexity import gzip_ratio
from megatron_nca.automaton.tokens import encode_patches

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
TRAJECTORIES = 8000
STATISTICS = ("gzip_ratio", "cell_change", "state_entropy", "distinct_tokens")
SETTINGS = tuple(sorted(path.stem for path in REFERENCE.glob("*.npz")))
# The numpy engine is slow, and the compiled one equal to it bit for bit (test_compiled).
NUMPY_SETTINGS = ("base", "binary", "identity")


def entropy(grids):
    share = np.bincount(grids.ravel()) / grids.size
    return -(share[share > 0] * np.log2(share[share > 0])).sum()


def statistics(config, grids):
    return (
        gzip_ratio(config, grids),
        (grids[1:] != grids[:-1]).mean(),
        entropy(grids),
        len(np.unique(encode_patches(config, grids))),
    )


@cache
def measured(setting, engine):
    stored = np.load(REFERENCE / f"{setting}.npz")
    stored_config = json.loads(str(stored["config"]))
    fields = ("grid", "colors", "patch", "temperature", "identity_bias", "burn_in", "dt")
    config = NCAConfig(**{field: stored_config[field] for field in fields})
    source = NCASource(config, seed=1, engine=engine)
    rows = [
        statistics(config, grids)
        for first in range(0, TRAJECTORIES, 500)
        for grids in source.grids_batch(range(first, first + 500), stored_config["frames"])
    ]
    return stored, dict(zip(STATISTICS, np.array(rows).T, strict=True))


def rounded(values):
    # The stored values are float32; rounding in another precision would part ties such as 0.10625.
    return np.round(np.asarray(values, dtype=np.float32), 4)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_compiled_engine_has_the_released_codes_distribution(setting, statistic):
    stored, ours = measured(setting, "compiled")
    assert ks_2samp(rounded(ours[statistic]), rounded(stored[statistic])).pvalue > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("setting", NUMPY_SETTINGS)
def test_the_numpy_engine_has_the_released_codes_distribution(setting, statistic):
    stored, ours = measured(setting, "reference")
    assert ks_2samp(rounded(ours[statistic]), rounded(stored[statistic])).pvalue > 0.001


@pytest.mark.slow
def test_the_test_would_notice_another_initial_state(monkeypatch):
    """All colours equally likely instead of a softmax of normal logits."""
    from megatron_nca.automaton import reference

    monkeypatch.setattr(reference, "odds_table", lambda: np.full(65536, 1000, dtype=np.int32))
    stored, ours = measured.__wrapped__("identity", "reference")
    values = [ks_2samp(rounded(ours[name]), rounded(stored[name])).pvalue for name in STATISTICS]
    assert min(values) < 0.001
