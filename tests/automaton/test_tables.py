import numpy as np
import pytest
from scipy import stats

from megatron_nca.automaton import tables
from megatron_nca.errors import EnvironmentMismatchError

PROBABILITY = (np.arange(65536) + 0.5) / 65536


def test_weights_are_a_unit_variance_truncated_normal():
    weights = tables.weight_table() / 2**tables.WEIGHT_BITS
    expected = stats.truncnorm(-2, 2).ppf(PROBABILITY) / stats.truncnorm(-2, 2).std()
    np.testing.assert_allclose(weights, expected, atol=1.3e-4)
    assert weights.std() == pytest.approx(1, abs=1e-3)


def test_odds_are_log_normal():
    np.testing.assert_allclose(tables.odds_table() / 2**16, np.exp(stats.norm.ppf(PROBABILITY)), rtol=1e-3)


def test_noise_is_gumbel():
    np.testing.assert_allclose(tables.gumbel_table() / 2**16, stats.gumbel_r.ppf(PROBABILITY), atol=1e-5)


def test_a_library_that_rounds_otherwise_is_noticed(monkeypatch):
    monkeypatch.setattr(np, "log", lambda values, log=np.log: log(values) * (1 + 1e-6))
    tables.gumbel_table.cache_clear()
    with pytest.raises(EnvironmentMismatchError, match="gumbel_table: digest"):
        tables.gumbel_table()
    monkeypatch.undo()
    tables.gumbel_table.cache_clear()
    tables.gumbel_table()


def test_tables_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        tables.weight_table()[0] = 0
