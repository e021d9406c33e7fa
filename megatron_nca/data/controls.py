"""Controls: what NCA is compared with, exact and counter-based like itself.

``shuffle=tokens`` keeps a trajectory's tokens and takes their order away: the same frequencies, delimiters in their places, no
dynamics. What a run gains from NCA and not from this, it has of the automaton.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.philox import Purpose, philox4x32
from megatron_nca.automaton.source import Indices, NCASource
from megatron_nca.data.entry import NCAEntry

WORDS = 4
"""Of a block of random numbers."""


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
        return (in_frame != 0) & (in_frame != self.config.frame_length - 1)

    def _permutation(self, index: int, length: int) -> npt.NDArray[np.int64]:
        """Return the order of random numbers that are drawn for the places: their ranks, ties by place."""
        blocks = np.arange(-(-length // WORDS))
        counter = np.zeros((len(blocks), 4), dtype=np.uint64)
        counter[:, 0], counter[:, 1] = blocks, Purpose.SHUFFLE << 24
        counter[:, 2], counter[:, 3] = index & 0xFFFFFFFF, index >> 32
        return np.argsort(philox4x32(counter, self.key).reshape(-1)[:length], kind="stable")


def make_source(entry: NCAEntry, seed: int, split: str = "train", stream: int = 0) -> NCASource:
    """Return the source that an entry describes.

    Args:
        entry: Gives the process, and what is done to it.
        seed: Of the run; an entry's own goes before it.
        split: ``train``, ``valid`` or ``test``.
        stream: Number that separates it from entries of the same process.
    """
    kind = ShuffledSource if entry.shuffle else NCASource
    return kind(entry.config, seed if entry.seed is None else entry.seed, split, entry.rules, stream)
