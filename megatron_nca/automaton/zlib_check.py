"""Known answers of zlib: another implementation compresses to other sizes, accepts other rules and makes other tokens."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np

from megatron_nca.automaton.complexity import GZIP_LEVEL
from megatron_nca.automaton.philox import Purpose, draws
from megatron_nca.errors import EnvironmentMismatchError

ALPHABETS = (2, 3, 5, 10, 30, 100, 1000, 10_000)
REPEATS = (1, 2, 6)
KNOWN_SIZES = (
    122, 123, 119, 170, 162, 161, 222, 221, 214, 292, 286, 279, 403, 380, 379, 514, 477, 476, 775, 690, 710, 954, 803, 846,
)  # fmt: skip
"""Compressed sizes of ``samples()``, by zlib 1.2.11 to 1.3."""


def samples() -> list[bytes]:
    """Make inputs like probes: 360 int32 of alphabets of several sizes, fresh or repeating earlier ones with changes."""
    made = []
    for number, alphabet in enumerate(ALPHABETS):
        for repeat in REPEATS:
            drawn = draws((number, repeat), Purpose.WEIGHTS, 720, np.arange(1))[0].astype(np.int64)
            tokens = drawn[:360] % alphabet
            earlier = np.maximum(np.arange(360) - 36, 0)
            kept = drawn[360:] % repeat != 0
            made.append(np.where(kept, tokens[earlier], tokens).astype("<i4").tobytes())
    return made


def sizes() -> tuple[int, ...]:
    """Compress the samples; bytes of each zlib stream."""
    return tuple(len(zlib.compress(sample, GZIP_LEVEL)) for sample in samples())


@cache
def check_zlib() -> None:
    """Check that this zlib compresses to the known sizes.

    Raises:
        EnvironmentMismatchError: It does not.
    """
    measured = sizes()
    wrong = [place for place, size in enumerate(measured) if size != KNOWN_SIZES[place]]
    if wrong:
        raise EnvironmentMismatchError(
            f"this Python's zlib ({zlib.ZLIB_RUNTIME_VERSION}) compresses {len(wrong)} of {len(measured)} known inputs to "
            "other sizes than the original zlib, so it would accept other rules than other machines; use a Python linked to "
            "the original zlib (zlib-ng in its compatibility mode and isa-l are others), or gzip=none"
        )
