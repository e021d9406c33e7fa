"""The compiled engine: the reference's trajectories, bit for bit, from numba's kernels."""

from __future__ import annotations

import threading
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton import production
from megatron_nca.automaton.complexity import PROBE_FRAMES, out_of_band, probe_bytes, sizes_in_band
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.cost import step_cost
from megatron_nca.automaton.deflate import parser
from megatron_nca.automaton.kernel_cache import forgiving_cache
from megatron_nca.automaton.philox import MAX_ATTEMPTS, Key
from megatron_nca.automaton.production import produce
from megatron_nca.automaton.reference import noise_table
from megatron_nca.automaton.rule import HIDDEN, logit_scale, weight_count
from megatron_nca.automaton.tables import DRAW_VALUES, odds_table, weight_table
from megatron_nca.automaton.words import WORD_BYTES

NO_NOISE = -1
ROUNDING = 8
"""Margin above what float32 can round away from a limit, so that no colour that noise could lift is left out."""
BUDGET = 200_000_000
"""Work of one call of the kernel, in about nanoseconds."""

Indices = npt.NDArray[np.int64]


@cache
def compile_kernels() -> None:
    """Compile, or load from the cache, once a process and before data-loader workers are forked."""
    forgiving_cache(produce)
    engine = CompiledEngine.__new__(CompiledEngine)
    engine._prepare(NCAConfig(grid=2, patch=2, burn_in=0), (0, 0))
    only = np.zeros(1, dtype=np.int64)
    engine.tokens(only, only, only, 2)


class CompiledEngine:
    """Rollouts of one process, compiled.

    Args:
        config: The process.
        key: Key of the random stream, two uint32 words.
    """

    name = "compiled"

    def __init__(self, config: NCAConfig, key: Key) -> None:
        compile_kernels()
        self._prepare(config, key)

    def __reduce__(self) -> tuple[type[CompiledEngine], tuple[NCAConfig, Key]]:
        """Pickle as what it was made from: a process that unpickles an engine needs its kernels loaded."""
        return CompiledEngine, (self.config, self.key)

    def _prepare(self, config: NCAConfig, key: Key) -> None:
        self.config = config
        self.key = key
        self._probe_bytes = probe_bytes(config)
        least, most = (0, 2**40) if config.gzip is None else sizes_in_band(config.gzip, self._probe_bytes)
        self._tables, spread = tables(config.colors, config.temperature)
        bias = round(config.identity_bias * logit_scale(config.colors))
        self._settings = np.array(
            [
                config.grid,
                config.colors,
                config.patch,
                config.burn_in,
                config.dt,
                HIDDEN,
                bias,
                spread,
                *key,
                least,
                most,
                step_cost(config),
                BUDGET,
            ],
            dtype=np.int64,
        )
        self._no_grids = np.zeros((1, 1, 1), dtype=np.uint8)
        self._no_tokens = np.zeros((1, 1), dtype=np.int32)
        # Threads share an engine, and each needs room of its own to work in.
        self._local = threading.local()

    def find_rules(self, rules: Indices) -> Indices:
        """Return the accepted attempt of each rule number, int64 (batch,)."""
        numbers = np.zeros((3, len(rules)), dtype=np.int64)
        if self.config.gzip is not None:
            numbers[0] = rules
            self._run(production.SEARCH, numbers, self._no_grids, self._no_tokens)
        attempts: Indices = numbers[1]
        return attempts

    def accepted(self, rules: Indices, attempts: Indices) -> npt.NDArray[np.bool_]:
        """Tell which candidates lie in the band; bool (batch,)."""
        verdicts = np.zeros((len(rules), 1), dtype=np.int32)
        self._run(production.JUDGE, np.array([rules, attempts, rules], dtype=np.int64), self._no_grids, verdicts)
        accepted: npt.NDArray[np.bool_] = verdicts[:, 0] != 0
        return accepted

    def grids(self, rules: Indices, attempts: Indices, trajectories: Indices, frames: int) -> npt.NDArray[np.uint8]:
        """Return the frames of each trajectory, uint8 (batch, frames, grid, grid)."""
        return self._frames(production.GRIDS, np.array([rules, attempts, trajectories], dtype=np.int64), frames)

    def probe(self, rules: Indices, attempts: Indices) -> npt.NDArray[np.uint8]:
        """Return the trajectories on which candidates are scored, uint8 (batch, 10, grid, grid)."""
        return self._frames(production.PROBES, np.array([rules, attempts, rules], dtype=np.int64), PROBE_FRAMES)

    def _frames(self, task: int, numbers: npt.NDArray[np.int64], frames: int) -> npt.NDArray[np.uint8]:
        batch, grid = numbers.shape[1], self.config.grid
        grids = np.empty((batch, frames, grid * grid), dtype=np.uint8)
        self._run(task, numbers, grids, self._no_tokens)
        return grids.reshape(batch, frames, grid, grid)

    def tokens(self, rules: Indices, attempts: Indices, trajectories: Indices, length: int) -> npt.NDArray[np.int32]:
        """Return the first tokens of each trajectory, int32 (batch, length)."""
        tokens = np.empty((len(rules), length), dtype=np.int32)
        self._run(production.TOKENS, np.array([rules, attempts, trajectories], dtype=np.int64), self._no_grids, tokens)
        return tokens

    def _run(
        self, task: int, numbers: npt.NDArray[np.int64], grids: npt.NDArray[np.uint8], tokens: npt.NDArray[np.int32]
    ) -> None:
        """Do a task; between the kernel's calls Python hears signals."""
        progress, *rooms = self._rooms()
        progress[:] = 0
        while True:
            state = produce(task, numbers, self._settings, self._tables, progress, *rooms, grids, tokens)
            if state == production.FINISHED:
                return
            if state == production.EXHAUSTED:
                raise out_of_band(self.config, MAX_ATTEMPTS)

    def _rooms(self) -> tuple[Any, ...]:
        """Return this thread's (progress, states, floats, data, patches, packer)."""
        found: tuple[Any, ...] | None = getattr(self._local, "rooms", None)
        if found is None:
            found = self._local.rooms = self._new_rooms()
        return found

    def _new_rooms(self) -> tuple[Any, ...]:
        config = self.config
        lanes, area = production.lanes_of.py_func(config.grid), (config.grid + 2) ** 2
        # Without a band no probe is made.
        probe = 0 if config.gzip is None else self._probe_bytes
        return (
            np.zeros(production.PROGRESS, dtype=np.int64),
            np.zeros((3, area), dtype=np.uint8),
            np.zeros(weight_count(config.colors) + 8, dtype=np.uint16),
            np.zeros(config.colors, dtype=np.uint64),
            np.zeros(HIDDEN * (10 * config.colors + 2 * lanes) + lanes * (config.colors + 3), dtype=np.float32),
            np.zeros(probe + WORD_BYTES, dtype=np.uint8),
            np.zeros(config.frame_length - 2, dtype=np.int32),
            parser(probe),
        )


@lru_cache(maxsize=16)
def tables(colors: int, temperature: float) -> tuple[npt.NDArray[np.int32], int]:
    """Return the weights', odds' and noise's tables as one, int32 (3 * 65536,), and how far noise can lift a score."""
    noise = noise_table(NCAConfig(colors=colors, temperature=temperature, patch=1))
    spread = NO_NOISE if noise is None else int(noise.max()) - int(noise.min()) + ROUNDING
    unused = np.zeros(DRAW_VALUES, dtype=np.int32)
    return np.concatenate([weight_table(), odds_table(), unused if noise is None else noise]), spread
