import numpy as np
import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.philox import Purpose
from megatron_nca.automaton.reference import ReferenceEngine, noise_table, perceive, update
from megatron_nca.automaton.rule import sample_rules

KEY = (5, 6)
INDEX = np.arange(3)


def slow_step(rules, state, bias, noise):
    """One step of one trajectory, cell by cell."""
    grid = len(state)
    after = np.empty_like(state)
    for y in range(grid):
        for x in range(grid):
            hidden = np.zeros(16, dtype=np.int64)
            for place in range(9):
                dy, dx = place // 3 - 1, place % 3 - 1
                hidden += rules.table[0, place, state[(y + dy) % grid, (x + dx) % grid]]
            score = np.maximum(hidden, 0) @ rules.readout[0]
            score[state[y, x]] += bias
            after[y, x] = np.argmax(score + noise[y, x])
    return after


@pytest.mark.parametrize(("temperature", "bias"), [(1e-4, 0), (0.1, 40_000), (3.0, -9_000)])
def test_a_step_is_the_definitions(temperature, bias):
    config = NCAConfig(grid=6, colors=5, temperature=temperature)
    engine = ReferenceEngine(config, KEY)
    rules = sample_rules(config, KEY, INDEX[:1])
    state = np.random.default_rng(1).integers(0, 5, (1, 6, 6)).astype(np.uint8)
    noise = engine._noise(INDEX[:1], np.zeros(1, dtype=np.int64), Purpose.NOISE, 7)
    stepped = update(config, rules, perceive(rules, state), state, bias, noise)
    np.testing.assert_array_equal(stepped[0], slow_step(rules, state[0], bias, noise[0]))


def test_frames_are_burn_in_plus_multiples_of_dt_steps():
    every_step = ReferenceEngine(NCAConfig(grid=6, burn_in=0, dt=1), KEY)
    sparse = ReferenceEngine(NCAConfig(grid=6, burn_in=5, dt=3), KEY)
    zeros = np.zeros_like(INDEX)
    full = every_step.grids(INDEX, zeros, INDEX, 12)
    np.testing.assert_array_equal(sparse.grids(INDEX, zeros, INDEX, 3), full[:, [5, 8, 11]])


def test_the_initial_state_follows_the_softmax_of_its_logits():
    engine = ReferenceEngine(NCAConfig(grid=256, colors=4, patch=1), KEY)
    state = engine._initial_state(INDEX, INDEX * 0, Purpose.LOGITS, Purpose.CELLS)
    from megatron_nca.automaton import philox
    from megatron_nca.automaton.tables import odds_table

    odds = odds_table()[philox.draws(KEY, Purpose.LOGITS, 4, INDEX)]
    share = np.stack([np.bincount(grid.ravel(), minlength=4) for grid in state]) / 65536
    np.testing.assert_allclose(share, odds / odds.sum(axis=1, keepdims=True), atol=0.01)


def test_temperature_is_that_of_the_softmax():
    """With equal logits but for one, the share of that colour is the softmax's."""
    config = NCAConfig(grid=128, colors=3, temperature=2.0)
    engine = ReferenceEngine(config, KEY)
    from megatron_nca.automaton.rule import logit_scale

    score = np.zeros((3, 128, 128, 3), dtype=np.int64)
    score[..., 1] = round(1.5 * logit_scale(3))
    drawn = (score + engine._noise(INDEX, INDEX * 0, Purpose.NOISE, 0)).argmax(axis=3)
    expected = np.exp(1.5 / 2) / (2 + np.exp(1.5 / 2))
    assert (drawn == 1).mean() == pytest.approx(expected, abs=0.01)
    assert (drawn == 2).mean() == pytest.approx((1 - expected) / 2, abs=0.01)


def test_temperature_zero_draws_nothing():
    assert noise_table(NCAConfig(temperature=0)) is None
    np.testing.assert_array_equal(
        ReferenceEngine(NCAConfig(temperature=0), KEY).grids(INDEX, INDEX * 0, INDEX, 5).shape, (3, 5, 12, 12)
    )


def test_a_strong_identity_bias_freezes_every_cell():
    grids = NCASource(NCAConfig(identity_bias=10, burn_in=0), engine="reference").grids_batch(range(4), 6)
    assert (grids == grids[:, :1]).all()
