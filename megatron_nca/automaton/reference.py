"""The reference engine: the process in numpy, written to be read.

A step perceives, then updates. For a cell with neighbours s_0 .. s_8,

    hidden = relu(sum_n table[n, s_n])                       perceive
    score  = hidden @ readout + bias * one_hot(s_4) + noise  update
    next   = argmax(score), the lowest colour where two tie

with Gumbel noise of the wanted temperature, which makes the argmax a draw from the softmax. Everything is an integer, so
every engine that computes the same numbers in any order makes the same tokens; this one is the definition they are tested
against.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton import philox
from megatron_nca.automaton.complexity import PROBE_FRAMES, BandSearch
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.philox import DRAWS_PER_BLOCK, Key, Purpose
from megatron_nca.automaton.rule import NEIGHBOURHOOD, Rules, logit_scale, sample_rules
from megatron_nca.automaton.tables import GUMBEL_BITS, gumbel_table, odds_table
from megatron_nca.automaton.tokens import encode_frames, encode_patches, frames_for

CENTRE = NEIGHBOURHOOD.index((0, 0))

States = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class ReferenceEngine:
    """Rollouts of one process, in numpy.

    Args:
        config: The process.
        key: Key of the random stream, two uint32 words.
    """

    name = "reference"

    def __init__(self, config: NCAConfig, key: Key) -> None:
        self.config = config
        self.key = key
        self.search = BandSearch(config)
        self.bias = round(config.identity_bias * logit_scale(config.colors))
        self.noise = noise_table(config)

    def find_rules(self, rules: Indices) -> Indices:
        """Find the first candidate of each rule number whose complexity lies in the band.

        Args:
            rules: Rule numbers, int64 (batch,).

        Returns:
            Attempt numbers, int64 (batch,); zeros without a band.

        Raises:
            ConfigError: No candidate lies in the band.
        """
        return self.search.first_accepted(rules, self.accepted)

    def accepted(self, rules: Indices, attempts: Indices) -> npt.NDArray[np.bool_]:
        """Tell which candidates' complexity lies in the band; bool (batch,)."""
        patches = encode_patches(self.config, self.probe(rules, attempts))
        return self.search.accepts(patches.reshape(len(rules), math.prod(patches.shape[1:])))

    def probe(self, rules: Indices, attempts: Indices) -> States:
        """Roll out the trajectories on which candidates are scored; uint8 (batch, 10, grid, grid)."""
        drawn = sample_rules(self.config, self.key, rules, attempts)
        purposes = (Purpose.PROBE_LOGITS, Purpose.PROBE_CELLS, Purpose.PROBE_NOISE)
        return self._rollout(drawn, rules, attempts, PROBE_FRAMES, purposes)

    def grids(self, rules: Indices, attempts: Indices, trajectories: Indices, frames: int) -> States:
        """Roll out trajectories.

        Args:
            rules: Rule numbers, int64 (batch,).
            attempts: Which candidate each of them is, int64 (batch,).
            trajectories: Trajectory numbers, which draw initial state and noise, int64 (batch,).
            frames: Frames of each.

        Returns:
            uint8 (batch, frames, grid, grid).
        """
        drawn = sample_rules(self.config, self.key, rules, attempts)
        purposes = (Purpose.LOGITS, Purpose.CELLS, Purpose.NOISE)
        return self._rollout(drawn, trajectories, np.zeros_like(attempts), frames, purposes)

    def tokens(self, rules: Indices, attempts: Indices, trajectories: Indices, length: int) -> npt.NDArray[np.int32]:
        """Roll out trajectories as their first ``length`` tokens, int32 (batch, length)."""
        grids = self.grids(rules, attempts, trajectories, frames_for(self.config, length))
        return encode_frames(self.config, grids)[:, :length]

    def _rollout(
        self, rules: Rules, index: Indices, attempt: Indices, frames: int, purposes: tuple[Purpose, Purpose, Purpose]
    ) -> States:
        logits, cells, noise = purposes
        config = self.config
        state = self._initial_state(index, attempt, logits, cells)
        recorded = np.empty((len(index), frames, config.grid, config.grid), dtype=np.uint8)
        step = 0
        for frame in range(frames):
            frame_step = config.burn_in + frame * config.dt
            while step < frame_step:
                drawn = self._noise(index, attempt, noise, step)
                state = update(config, rules, perceive(rules, state), state, self.bias, drawn)
                step += 1
            recorded[:, frame] = state
        return recorded

    def _initial_state(self, index: Indices, attempt: Indices, logits: Purpose, cells: Purpose) -> States:
        """Draw every cell from one softmax of normal logits a trajectory; uint8 (batch, grid, grid)."""
        config = self.config
        odds = odds_table()[philox.draws(self.key, logits, config.colors, index, attempt)].astype(np.uint64)
        bounds = np.cumsum(odds, axis=1)
        area = config.grid**2
        drawn = philox.words(self.key, cells, -(-area // 4), index, attempt)[:, :area].astype(np.uint64)
        target = (drawn * bounds[:, -1:]) >> np.uint64(32)
        state: npt.NDArray[np.int64] = (target[:, :, None] >= bounds[:, None, :-1]).sum(axis=2)
        return state.astype(np.uint8).reshape(len(index), config.grid, config.grid)

    def _noise(self, index: Indices, attempt: Indices, purpose: Purpose, step: int) -> npt.NDArray[np.int32] | None:
        """Noise of one step, int32 (batch, grid, grid, colors), or None at temperature 0."""
        if self.noise is None:
            return None
        config = self.config
        area, slots = config.grid**2, -(-config.colors // DRAWS_PER_BLOCK) * DRAWS_PER_BLOCK
        drawn = philox.draws(self.key, purpose, area * slots, index, attempt, step)
        per_cell = drawn.reshape(len(index), config.grid, config.grid, slots)[..., : config.colors]
        noise: npt.NDArray[np.int32] = self.noise[per_cell]
        return noise


def noise_table(config: NCAConfig) -> npt.NDArray[np.int32] | None:
    """Gumbel noise at the process's temperature, in the integer network's units, by 16-bit draw; None at temperature 0."""
    if config.temperature == 0.0:
        return None
    unit = config.temperature * logit_scale(config.colors) / 2**GUMBEL_BITS
    table: npt.NDArray[np.float64] = np.rint(gumbel_table() * unit)
    return table.astype(np.int32)


def perceive(rules: Rules, state: States) -> npt.NDArray[np.int32]:
    """Sum what the nine neighbours on the torus add, and rectify; int32 (batch, grid, grid, 16)."""
    trajectory = np.arange(len(state))[:, None, None]
    neighbours = (np.roll(state, (-dy, -dx), axis=(1, 2)) for dy, dx in NEIGHBOURHOOD)
    hidden = sum(rules.table[trajectory, place, colour] for place, colour in enumerate(neighbours))
    rectified: npt.NDArray[np.int32] = np.maximum(hidden, 0)
    return rectified


def update(
    config: NCAConfig,
    rules: Rules,
    hidden: npt.NDArray[np.int32],
    state: States,
    bias: int,
    noise: npt.NDArray[np.int32] | None,
) -> States:
    """Draw every cell's next colour from its hidden units; uint8 (batch, grid, grid)."""
    batch, grid, _, units = hidden.shape
    # Below 2**24 float32 is exact in any order of summation, and its matrix product is the fast one.
    logits = hidden.reshape(batch, grid * grid, units).astype(np.float32) @ rules.readout.astype(np.float32)
    score: npt.NDArray[np.int32] = logits.astype(np.int32).reshape(batch, grid, grid, config.colors)
    if bias:
        score = score + bias * (state[..., None] == np.arange(config.colors))
    if noise is not None:
        score = score + noise
    drawn: npt.NDArray[np.int64] = score.argmax(axis=3)
    return drawn.astype(np.uint8)
