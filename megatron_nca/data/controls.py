"""Controls: what NCA is compared with, exact and counter-based like itself.

``control=shuffled`` keeps a trajectory's tokens and takes their order away: the same frequencies, delimiters in their places,
no dynamics. What a run gains from NCA and not from this, it has of the automaton.

``control=dyck`` is the language of well-nested brackets, another synthetic one that the paper compares with: at every place a
bracket opens or the last open one closes, each with probability 1/2, where the depth allows both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.philox import Purpose, philox4x32
from megatron_nca.automaton.source import Indices, NCASource
from megatron_nca.data.entry import NCAEntry

WORDS = 4
"""uint32 words of a block of random numbers."""
KINDS, DEPTH = 64, 16
"""Kinds of brackets, and how deep they nest."""


class ShuffledSource(NCASource):
    """Trajectories whose patch tokens are permuted, each by a permutation of its own.

    The permutation is that of a whole document: a part of a trajectory is no part of another length's.
    """

    def tokens_batch(self, indices: Sequence[int] | Indices, length: int) -> npt.NDArray[np.int32]:
        """Return the first tokens of several trajectories, patch tokens in random order, int32 (batch, length)."""
        tokens = super().tokens_batch(indices, length)
        places = np.flatnonzero(self._is_patch(length))
        for row, index in zip(tokens, indices, strict=True):
            row[places] = row[places[self._permutation(int(index), len(places))]]
        return tokens

    def _is_patch(self, length: int) -> npt.NDArray[np.bool_]:
        in_frame = np.arange(length) % self.config.frame_length
        in_patch: npt.NDArray[np.bool_] = (in_frame != 0) & (in_frame != self.config.frame_length - 1)
        return in_patch

    def _permutation(self, index: int, length: int) -> npt.NDArray[np.int64]:
        """Return the order of random numbers that are drawn for the places: their ranks, ties by place."""
        return np.argsort(_random_words(self, Purpose.SHUFFLE, index, length), kind="stable")


class DyckSource(NCASource):
    """Well-nested brackets of up to 64 kinds: ids of opening ones first, of the closing ones behind them.

    A sequence is cut where it ends, so that its last brackets may stay open.
    """

    def tokens_batch(self, indices: Sequence[int] | Indices, length: int) -> npt.NDArray[np.int32]:
        """Return the first tokens of several sequences, int32 (batch, length)."""
        kinds = min(KINDS, self.config.vocab_size // 2)
        tokens = np.empty((len(indices), max(length, 0)), dtype=np.int32)
        for row, index in zip(tokens, indices, strict=True):
            words = _random_words(self, Purpose.BRACKETS, int(index), len(row))
            nested: list[int] = []
            for place, word in enumerate(words.tolist()):
                # The lowest bit says whether a bracket opens, the others which.
                if not nested or (word & 1 and len(nested) < DEPTH):
                    nested.append((word >> 1) * kinds >> 31)
                    row[place] = nested[-1]
                else:
                    row[place] = kinds + nested.pop()
        return tokens


def _random_words(source: NCASource, purpose: Purpose, index: int, length: int) -> npt.NDArray[np.uint32]:
    """Return random numbers of a trajectory's own, uint32 (length,)."""
    blocks = np.arange(-(-length // WORDS))
    counter = np.zeros((len(blocks), 4), dtype=np.uint64)
    counter[:, 0], counter[:, 1] = blocks, purpose << 24
    counter[:, 2], counter[:, 3] = index & 0xFFFFFFFF, index >> 32
    return philox4x32(counter, source.key).reshape(-1)[:length]


SOURCES = {None: NCASource, "shuffled": ShuffledSource, "dyck": DyckSource}


def make_source(entry: NCAEntry, seed: int, split: str = "train", stream: int = 0) -> NCASource:
    """Return the source that an entry describes.

    Args:
        entry: Gives the process, and what is done to it.
        seed: Seed of the run; an entry's own goes before it.
        split: ``train``, ``valid`` or ``test``.
        stream: Number that separates it from entries of the same process.
    """
    return SOURCES[entry.control](entry.config, seed if entry.seed is None else entry.seed, split, entry.rules, stream)
