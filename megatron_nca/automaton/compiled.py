"""The compiled engine: the reference's trajectories, bit for bit, from numba's kernels."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.complexity import PROBE_FRAMES, BandSearch
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.kernel_cache import forgiving_cache
from megatron_nca.automaton.kernels import encode, roll_out
from megatron_nca.automaton.philox import Key, Purpose
from megatron_nca.automaton.reference import noise_table
from megatron_nca.automaton.rule import HIDDEN, logit_scale
from megatron_nca.automaton.tables import odds_table, weight_table
from megatron_nca.automaton.zlib_check import check_zlib

NO_NOISE = -1.0
ROUNDING = 8.0
"""Above what float32 can round away from a limit, so that no colour that noise could lift is left out."""

Indices = npt.NDArray[np.int64]


@cache
def compile_kernels() -> None:
    """Compile, or load from the cache, once a process and before data-loader workers are forked."""
    for function in (roll_out, encode):
        forgiving_cache(function)
    engine = CompiledEngine.__new__(CompiledEngine)
    engine._prepare(NCAConfig(grid=2, patch=2, burn_in=0), (0, 0))
    only = np.zeros(1, dtype=np.int64)
    engine.tokens(only, only, only, 2)


class CompiledEngine:
    """Rollouts of one process, compiled.

    Args:
        config: The process.
        key: Of the random stream.
    """

    name = "compiled"

    def __init__(self, config: NCAConfig, key: Key) -> None:
        if config.gzip is not None:
            check_zlib()
        compile_kernels()
        self._prepare(config, key)

    def __reduce__(self) -> tuple[type[CompiledEngine], tuple[NCAConfig, Key]]:
        """Pickle as what it was made from: a process that unpickles an engine needs its kernels loaded and zlib checked."""
        return CompiledEngine, (self.config, self.key)

    def _prepare(self, config: NCAConfig, key: Key) -> None:
        self.config = config
        self.key = key
        self.search = BandSearch(config)
        self._key = np.array(key, dtype=np.uint64)
        noise = noise_table(config)
        spread = NO_NOISE if noise is None else float(int(noise.max()) - int(noise.min())) + ROUNDING
        self._noise = np.zeros(1, dtype=np.int32) if noise is None else noise
        bias = round(config.identity_bias * logit_scale(config.colors))
        self._scale = np.array([bias, spread], dtype=np.float32)
        self._sizes = np.array([config.grid, config.colors, config.burn_in, config.dt, HIDDEN], dtype=np.int64)

    def find_rules(self, rules: Indices) -> Indices:
        """Return the accepted attempt of each rule number, int64 (batch,)."""
        return self.search.first_accepted(rules, self.accepted)

    def accepted(self, rules: Indices, attempts: Indices) -> npt.NDArray[np.bool_]:
        """Tell which candidates lie in the band; bool (batch,)."""
        grids = self._roll_out(
            rules, attempts, rules, attempts, PROBE_FRAMES, (Purpose.PROBE_LOGITS, Purpose.PROBE_CELLS, Purpose.PROBE_NOISE)
        )
        patches = self._encode(grids, False, PROBE_FRAMES * (self.config.frame_length - 2))
        return self.search.accepts(patches)

    def grids(self, rules: Indices, attempts: Indices, trajectories: Indices, frames: int) -> npt.NDArray[np.uint8]:
        """Return the frames of each trajectory, uint8 (batch, frames, grid, grid)."""
        purposes = (Purpose.LOGITS, Purpose.CELLS, Purpose.NOISE)
        return self._roll_out(rules, attempts, trajectories, np.zeros_like(trajectories), frames, purposes)

    def tokens(self, rules: Indices, attempts: Indices, trajectories: Indices, length: int) -> npt.NDArray[np.int32]:
        """Return the first tokens of each trajectory, int32 (batch, length)."""
        frames = -(-length // self.config.frame_length)
        return self._encode(self.grids(rules, attempts, trajectories, frames), True, length)

    def _roll_out(
        self,
        rules: Indices,
        attempts: Indices,
        trajectories: Indices,
        draw_attempts: Indices,
        frames: int,
        purposes: tuple[Purpose, Purpose, Purpose],
    ) -> npt.NDArray[np.uint8]:
        grids = np.empty((len(rules), frames, self.config.grid, self.config.grid), dtype=np.uint8)
        logits, cells, noise = purposes
        roll_out(
            own(rules), own(attempts), own(trajectories), own(draw_attempts), (int(logits), int(cells), int(noise)),
            self._sizes, self._scale, self._key, weight_table(), odds_table(), self._noise, grids,
        )  # fmt: skip
        return grids

    def _encode(self, grids: npt.NDArray[np.uint8], framed: bool, length: int) -> npt.NDArray[np.int32]:
        tokens = np.empty((len(grids), length), dtype=np.int32)
        encode(grids, self.config.patch, self.config.colors, framed, tokens)
        return tokens


def own(numbers: Indices) -> Indices:
    """Copy: a view with strides or without write access would be a type of its own to numba, and compiled for anew."""
    return np.array(numbers, dtype=np.int64)
