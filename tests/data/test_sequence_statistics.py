import numpy as np
import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.data.sequence_statistics import measure_sequences


def test_a_sequence_that_repeats_itself_comes_back_at_its_period_alone():
    found = measure_sequences(np.tile(np.arange(8), (3, 16)), 8)
    assert found.entropy == pytest.approx(3)
    assert found.change == 0
    assert found.frequency[:9].tolist() == [0.125] * 8 + [0]
    expected = [0.875 if distance % 8 == 0 else -0.125 for distance in range(1, 101)]
    assert found.autocorrelation == pytest.approx(expected)


def test_noise_comes_back_by_chance_and_changes_as_often_as_chance_has_it():
    found = measure_sequences(np.random.default_rng(0).integers(0, 16, (40, 2000)), 38)
    assert found.entropy == pytest.approx(4, abs=0.02)
    assert found.change == pytest.approx(15 / 16, abs=0.01)
    assert np.abs(found.autocorrelation).max() < 0.01


def test_one_token_alone_has_no_entropy():
    found = measure_sequences(np.zeros((1, 20), dtype=int), 5)
    assert (found.entropy, found.change, found.frequency[0]) == (0, 0, 1)
    assert found.autocorrelation.tolist() == [0] * 19


def test_nca_comes_back_after_a_frame():
    config = NCAConfig(gzip=(0.3, 0.4))
    found = measure_sequences(NCASource(config).tokens_batch(range(12), 1024), config.frame_length)
    neighbours = found.autocorrelation[[config.frame_length - 2, config.frame_length]]
    assert found.autocorrelation[config.frame_length - 1] > neighbours.max() + 0.03
