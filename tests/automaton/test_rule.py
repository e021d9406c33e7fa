import numpy as np
import pytest

from megatron_nca import NCAConfig
from megatron_nca.automaton import philox
from megatron_nca.automaton.philox import Purpose
from megatron_nca.automaton.rule import logit_scale, sample_rules, weight_count
from megatron_nca.automaton.tables import weight_table

KEY = (11, 22)


def plain_network(config, weights, state):
    """The network as NCA.md states it: padded on all three axes, convolved, in float64, weights of LeCun's variance."""
    k = config.colors
    kernel, mixing, readout = np.split(weights, np.cumsum([9 * (k + 2) * 4, 4 * 16]))
    kernel = kernel.reshape(3, 3, k + 2, 4) / np.sqrt(9 * (k + 2))
    mixing, readout = mixing.reshape(4, 16) / np.sqrt(4), readout.reshape(16, k) / np.sqrt(16)
    padded = np.pad(np.eye(k)[state], 1, mode="wrap")
    features = np.zeros((config.grid, config.grid, 4))
    for dy in range(3):
        for dx in range(3):
            features += padded[dy : dy + config.grid, dx : dx + config.grid] @ kernel[dy, dx]
    return np.maximum(features @ mixing, 0) @ readout


@pytest.mark.parametrize("colors", [2, 3, 10, 33])
def test_integer_logits_are_the_networks_up_to_rounding(colors):
    from megatron_nca.automaton.reference import perceive

    config = NCAConfig(grid=8, colors=colors)
    index = np.arange(5)
    weights = weight_table()[philox.draws(KEY, Purpose.WEIGHTS, weight_count(colors), index)] / 2**12
    rules = sample_rules(config, KEY, index)
    state = np.random.default_rng(0).integers(0, colors, (5, 8, 8)).astype(np.uint8)
    logits = perceive(rules, state) @ rules.readout[:, None] / logit_scale(colors)
    expected = np.stack([plain_network(config, w, s) for w, s in zip(weights, state, strict=True)])
    assert (logits - expected).std() < 0.03 * expected.std()


def test_first_and_last_colour_are_seen_through_two_weights():
    rules = sample_rules(NCAConfig(), KEY, np.arange(400))
    deviation = rules.table.astype(float).std(axis=(0, 1, 3))
    np.testing.assert_allclose(deviation[[0, -1]] / deviation[1:-1].mean(), np.sqrt(2), rtol=0.05)


def test_every_intermediate_stays_below_two_to_the_24():
    """The bound is one of construction: here for the worst weights that the table holds."""
    greatest = int(weight_table().max())
    entry = (2 * 4 * greatest * greatest >> 19) + 1
    readout = (greatest >> 7) + 1
    assert 9 * entry * 16 * readout < 2**24


def test_candidates_of_a_rule_number_differ():
    first, second = (sample_rules(NCAConfig(), KEY, np.array([3]), attempt) for attempt in (0, 1))
    assert (first.table != second.table).any()
