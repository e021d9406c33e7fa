"""The process as one would first write it with numba: the same tokens with none of the compiled engine's ideas.

Coordinates wrap by modulo, a cell is scored on its own in integers, noise is drawn for every colour of every cell, and a
trajectory that has come to rest is stepped on; probes are compressed by zlib. Rules, initial states, the search and the tokens
are the reference's, in batches that make numpy's share small.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
from numba import njit

from megatron_nca.automaton.complexity import GZIP_EXTRA
from megatron_nca.automaton.kernels import address, philox
from megatron_nca.automaton.philox import Purpose
from megatron_nca.automaton.reference import Indices, ReferenceEngine, States
from megatron_nca.automaton.rule import HIDDEN, Rules
from megatron_nca.automaton.tokens import encode_patches


class Yardstick(ReferenceEngine):
    """Rollouts of one process, one trajectory at a time in plain loops."""

    name = "yardstick"

    def accepted(self, rules: Indices, attempts: Indices) -> npt.NDArray[np.bool_]:
        """Tell which candidates lie in the band; needs the original zlib."""
        if self.config.gzip is None:
            return np.ones(len(rules), dtype=bool)
        raw = encode_patches(self.config, self.probe(rules, attempts)).reshape(len(rules), -1).astype("<i4")
        lo, hi = self.config.gzip
        sizes = [len(zlib.compress(row.tobytes(), 9)) + GZIP_EXTRA for row in raw]
        return np.array([lo < size / (4 * raw.shape[1]) < hi for size in sizes], dtype=bool)

    def _rollout(
        self, rules: Rules, index: Indices, attempt: Indices, frames: int, purposes: tuple[Purpose, Purpose, Purpose]
    ) -> States:
        logits, cells, noise = purposes
        config = self.config
        states = self._initial_state(index, attempt, logits, cells)
        recorded = np.empty((len(index), frames, config.grid, config.grid), dtype=np.uint8)
        key = np.array(self.key, dtype=np.uint64)
        assert self.noise is not None, "the yardstick needs a temperature above 0"
        for item, state in enumerate(states):
            roll_out(
                rules.table[item], rules.readout[item], state, config.burn_in, config.dt, self.bias, self.noise, key,
                (int(noise), index[item], attempt[item]), recorded[item],
            )  # fmt: skip
        return recorded


@njit()
def roll_out(
    table: npt.NDArray[np.int32],
    readout: npt.NDArray[np.int32],
    state: States,
    burn_in: int,
    dt: int,
    bias: int,
    noise: npt.NDArray[np.int32],
    key: npt.NDArray[np.uint64],
    stream: tuple[int, int, int],
    recorded: States,
) -> None:
    """Record the frames of one trajectory; needs a temperature above 0."""
    where = address(stream[0], stream[1], stream[2])
    after = np.empty_like(state)
    step = 0
    for frame in range(len(recorded)):
        while step < burn_in + frame * dt:
            advance(table, readout, state, after, bias, noise, key, where, step)
            state, after = after, state
            step += 1
        recorded[frame] = state


@njit
def advance(table, readout, state, after, bias, noise, key, where, step):  # type: ignore[no-untyped-def]
    """Do one step from ``state`` to ``after``."""
    grid, colors = len(state), readout.shape[1]
    scores = np.empty(colors, dtype=np.int64)
    hidden = np.empty(HIDDEN, dtype=np.int32)
    for y in range(grid):
        for x in range(grid):
            hidden[:] = 0
            for place in range(9):
                colour = state[(y + place // 3 - 1) % grid, (x + place % 3 - 1) % grid]
                for unit in range(HIDDEN):
                    hidden[unit] += table[place, colour, unit]
            for colour in range(colors):
                total = 0
                for unit in range(HIDDEN):
                    total += max(hidden[unit], 0) * readout[unit, colour]
                scores[colour] = total
            scores[state[y, x]] += bias
            add_noise(scores, noise, key, where, y * grid + x, step)
            after[y, x] = np.argmax(scores)


@njit
def add_noise(scores, noise, key, where, cell, step):  # type: ignore[no-untyped-def]
    """Add one draw to the score of each colour."""
    blocks = (len(scores) + 7) // 8
    for colour in range(len(scores)):
        if colour % 8 == 0:
            slot = where[0] | np.uint64(cell * blocks + colour // 8)
            drawn = philox(np.uint64(step), slot, where[1], where[2], key[0], key[1])
        word = drawn[(colour % 8) // 2]
        half = (word >> np.uint64(16)) if colour % 2 else (word & np.uint64(0xFFFF))
        scores[colour] += noise[half]
