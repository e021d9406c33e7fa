"""Philox4x32-10: random numbers as a pure function of a key and a counter.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Ten rounds of

    (c0, c1, c2, c3) -> (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)),   (k0, k1) += (W0, W1)

A draw that nobody looks at costs nothing and shifts no other, so every number of a trajectory has an address:

    counter = (step, purpose << 24 | slot, index mod 2**32, attempt << 16 | index >> 32)
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import numpy as np
import numpy.typing as npt

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF

DRAWS_PER_BLOCK = 8
"""16-bit draws in the four 32-bit words of one block."""

MAX_INDEX = 2**48
MAX_ATTEMPTS = 2**16

Key = tuple[int, int]


class Purpose(IntEnum):
    """What a draw is for: the draws of a rule's probe and of its trajectories never meet."""

    WEIGHTS = 0
    PROBE_LOGITS = 1
    PROBE_CELLS = 2
    PROBE_NOISE = 3
    LOGITS = 4
    CELLS = 5
    NOISE = 6
    SHUFFLE = 7
    BRACKETS = 8


def derive_key(*parts: object) -> Key:
    """Hash what distinguishes a random stream into a 64-bit key.

    Args:
        parts: Values whose ``str`` identifies the stream.

    Returns:
        The two 32-bit words of the key.
    """
    digest = hashlib.sha256("|".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def philox4x32(counter: npt.ArrayLike, key: Key) -> npt.NDArray[np.uint32]:
    """Evaluate the generator.

    Args:
        counter: Integers below 2**32, shape (..., 4).
        key: Two integers below 2**32.

    Returns:
        uint32, shape (..., 4).
    """
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    word, half = np.uint64(WORD), np.uint64(32)
    k0, k1 = key
    for _ in range(ROUNDS):
        product0 = c0 * np.uint64(MULTIPLIERS[0])
        product1 = c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (product1 >> half) ^ c1 ^ np.uint64(k0),
            product1 & word,
            (product0 >> half) ^ c3 ^ np.uint64(k1),
            product0 & word,
        )
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(
    key: Key,
    purpose: Purpose,
    blocks: int,
    index: npt.NDArray[np.int64],
    attempt: npt.NDArray[np.int64] | int = 0,
    step: int = 0,
) -> npt.NDArray[np.uint32]:
    """Draw 32-bit words.

    Args:
        key: Key of the random stream, two uint32 words.
        purpose: What they are for.
        blocks: How many blocks of four words.
        index: Rule or trajectory numbers, shape (batch,), below 2**48.
        attempt: Number of the candidate rule, a scalar or shape (batch,), below 2**16.
        step: Step of the rollout.

    Returns:
        uint32, shape (batch, 4 * blocks).
    """
    counter = np.empty((len(index), blocks, 4), dtype=np.uint64)
    counter[..., 0] = step
    counter[..., 1] = (int(purpose) << 24) | np.arange(blocks)
    counter[..., 2] = (index & WORD)[:, None]
    counter[..., 3] = ((np.asarray(attempt, dtype=np.int64) << 16) | (index >> 32))[..., None]
    return philox4x32(counter, key).reshape(len(index), 4 * blocks)


def draws(
    key: Key,
    purpose: Purpose,
    count: int,
    index: npt.NDArray[np.int64],
    attempt: npt.NDArray[np.int64] | int = 0,
    step: int = 0,
) -> npt.NDArray[np.uint16]:
    """Draw 16-bit numbers: the low half of each word, then its high half.

    Args:
        key: Key of the random stream, two uint32 words.
        purpose: What they are for.
        count: How many a row.
        index: Rule or trajectory numbers, shape (batch,), below 2**48.
        attempt: Number of the candidate rule, a scalar or shape (batch,), below 2**16.
        step: Step of the rollout.

    Returns:
        uint16, shape (batch, count).
    """
    blocks = -(-count // DRAWS_PER_BLOCK)
    drawn = words(key, purpose, blocks, index, attempt, step)
    halves = np.stack([drawn & np.uint32(0xFFFF), drawn >> np.uint32(16)], axis=-1)
    return halves.reshape(len(index), blocks * DRAWS_PER_BLOCK)[:, :count].astype(np.uint16)
