"""Known answers of the complexity score: what the original zlib makes of inputs like probes.

An engine that sizes a probe otherwise accepts other rules and makes other tokens. The answers are the original zlib's, so a
zlib that gives them all is likely one to test against; zlib-ng 2.3 gives them all too, and sizes one probe in seven otherwise.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from megatron_nca.automaton.deflate import deflated_size
from megatron_nca.automaton.philox import Purpose, draws
from megatron_nca.errors import EnvironmentMismatchError

ALPHABETS = (2, 3, 5, 10, 30, 100, 1000, 10_000)
REPEATS = (1, 2, 6)
KNOWN_SIZES = (
    122, 123, 119, 170, 162, 161, 222, 221, 214, 292, 286, 279, 403, 380, 379, 514, 477, 476, 775, 690, 710, 954, 803, 846,
)  # fmt: skip
"""Sizes of the zlib streams of ``samples()`` at level 9, by zlib 1.2.11 to 1.3."""


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


@cache
def check_sizes() -> None:
    """Check that this machine sizes the samples as every other does.

    Raises:
        EnvironmentMismatchError: It does not.
    """
    wrong = [known for known, sample in zip(KNOWN_SIZES, samples(), strict=True) if deflated_size(sample) != known]
    if wrong:
        raise EnvironmentMismatchError(
            f"the complexity score of {len(wrong)} of {len(KNOWN_SIZES)} known inputs is not what it is on other machines, so "
            "this one would accept other rules; remove numba's cache of kernels, and report it if that does not help"
        )
