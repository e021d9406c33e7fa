"""NCASource: trajectory number -> grids or tokens, a pure function of (config, seed, split, stream, index)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.complexity import gzip_ratio
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.philox import MAX_INDEX, Key, derive_key
from megatron_nca.automaton.reference import ReferenceEngine
from megatron_nca.errors import ConfigError, NCAError

STREAM_VERSION = "megatron-nca-1"
"""Changes when, and only when, the same settings would make other tokens."""

SPLITS = ("train", "valid", "test")

Indices = npt.NDArray[np.int64]


class Engine(Protocol):
    """What makes trajectories. Every engine makes the same, bit for bit."""

    name: str

    def find_rules(self, rules: Indices) -> Indices:
        """Return the accepted attempt of each rule number."""

    def accepted(self, rules: Indices, attempts: Indices) -> npt.NDArray[np.bool_]:
        """Tell which candidates lie in the band."""

    def probe(self, rules: Indices, attempts: Indices) -> npt.NDArray[np.uint8]:
        """Return the trajectories on which candidates are scored."""

    def grids(self, rules: Indices, attempts: Indices, trajectories: Indices, frames: int) -> npt.NDArray[np.uint8]:
        """Return the frames of each trajectory."""

    def tokens(self, rules: Indices, attempts: Indices, trajectories: Indices, length: int) -> npt.NDArray[np.int32]:
        """Return the first tokens of each trajectory."""


def _compiled(config: NCAConfig, key: Key) -> Engine:
    # Numba takes longer to import than all the rest, and who only lays out a run needs no trajectory.
    from megatron_nca.automaton.compiled import CompiledEngine

    return CompiledEngine(config, key)


ENGINES: dict[str, Callable[[NCAConfig, Key], Engine]] = {"compiled": _compiled, "reference": ReferenceEngine}


class NCASource:
    """Trajectories of random cellular automata, by number.

    Trajectory ``i`` follows rule ``i``, or rule ``i mod rules`` where a pool is asked for, from an initial state of its own.
    A rule number stands for the first of its random candidates whose complexity lies in ``config.gzip``. Splits and streams
    have separate random numbers, so a rule never crosses from one to another.

    Args:
        config: The process.
        seed: Seed of the random stream.
        split: ``train``, ``valid`` or ``test``.
        rules: Size of the pool of rules, or None for a fresh rule for every trajectory.
        stream: Number that separates two sources which have everything else in common.
        engine: ``compiled``, or ``reference``, the readable definition; both make the same trajectories.

    Raises:
        NCAError: An argument is not usable.
    """

    def __init__(
        self,
        config: NCAConfig,
        seed: int = 1234,
        split: str = "train",
        rules: int | None = None,
        stream: int = 0,
        engine: str = "compiled",
    ) -> None:
        if split not in SPLITS:
            raise NCAError(f"split {split!r}: must be one of {', '.join(SPLITS)}")
        if rules is not None and not 0 < rules <= MAX_INDEX:
            raise ConfigError("rules", rules, "must be at least 1")
        if engine not in ENGINES:
            raise NCAError(f"engine {engine!r}: must be one of {', '.join(ENGINES)}")
        self.config = config
        self.seed = seed
        self.split = split
        self.rules = rules
        self.stream = stream
        self.key = derive_key(STREAM_VERSION, config.to_uri(), f"rules={rules}", seed, split, stream)
        self.engine = ENGINES[engine](config, self.key)

    def grids(self, index: int, frames: int) -> npt.NDArray[np.uint8]:
        """Return the first frames of one trajectory.

        Args:
            index: Trajectory number, 0 <= index < 2**48.
            frames: How many.

        Returns:
            uint8 (frames, grid, grid).
        """
        grids: npt.NDArray[np.uint8] = self.grids_batch([index], frames)[0]
        return grids

    def tokens(self, index: int, length: int) -> npt.NDArray[np.int32]:
        """Return the first tokens of one trajectory.

        Args:
            index: Trajectory number, 0 <= index < 2**48.
            length: How many, delimiters included.

        Returns:
            int32 (length,), ids in [0, config.vocab_size).
        """
        tokens: npt.NDArray[np.int32] = self.tokens_batch([index], length)[0]
        return tokens

    def grids_batch(self, indices: Sequence[int] | Indices, frames: int) -> npt.NDArray[np.uint8]:
        """Return the first frames of several trajectories, uint8 (batch, frames, grid, grid)."""
        if frames < 1:
            raise NCAError(f"frames={frames}: must be at least 1")
        return self.engine.grids(*self._trajectories(indices), frames)

    def tokens_batch(self, indices: Sequence[int] | Indices, length: int) -> npt.NDArray[np.int32]:
        """Return the first tokens of several trajectories, int32 (batch, length)."""
        if length <= 1:
            # The first token opens a frame whatever the rule; a packed sequence asks for it alone as its last label.
            opening = np.full((len(_checked_indices(indices)), 1), self.config.patch_tokens, dtype=np.int32)
            return opening[:, : max(length, 0)]
        return self.engine.tokens(*self._trajectories(indices), length)

    def _trajectories(self, indices: Sequence[int] | Indices) -> tuple[Indices, Indices, Indices]:
        """Return the rule, its accepted attempt and the number of each trajectory."""
        trajectories = _checked_indices(indices)
        rules = trajectories if self.rules is None else trajectories % self.rules
        return rules, self.engine.find_rules(rules), trajectories

    def acceptance(self, candidates: int, first: int = 0) -> float:
        """Return the share of random rules that lie in the band.

        Args:
            candidates: How many to look at: the first candidate of so many rule numbers.
            first: The first rule number.
        """
        if self.config.gzip is None:
            return 1.0
        rules = np.arange(first, first + candidates, dtype=np.int64)
        return float(self.engine.accepted(rules, np.zeros_like(rules)).mean())

    def complexities(self, candidates: int, first: int = 0) -> npt.NDArray[np.float64]:
        """Return the compression ratios of the first candidates of so many rules, from ``first`` on, float64 (candidates,)."""
        rules = np.arange(first, first + candidates, dtype=np.int64)
        probes = self.engine.probe(rules, np.zeros_like(rules))
        return np.array([gzip_ratio(self.config, grids) for grids in probes])

    def scores(self, indices: Sequence[int] | Indices) -> npt.NDArray[np.float64]:
        """Return the compression ratios of the rules that some trajectories follow, float64 (batch,)."""
        return np.array([gzip_ratio(self.config, grids) for grids in self.probes(indices)])

    def probes(self, indices: Sequence[int] | Indices) -> npt.NDArray[np.uint8]:
        """Return the probes on which those rules are scored, uint8 (batch, 10, grid, grid)."""
        rules, attempts, _ = self._trajectories(indices)
        return self.engine.probe(rules, attempts)


def _checked_indices(indices: Sequence[int] | Indices) -> Indices:
    trajectories = np.asarray(indices, dtype=np.int64)
    if len(trajectories) and (trajectories.min() < 0 or trajectories.max() >= MAX_INDEX):
        raise NCAError(f"trajectory numbers {trajectories.min()} to {trajectories.max()}: must lie in [0, 2**48)")
    return trajectories
