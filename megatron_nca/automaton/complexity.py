"""Complexity of a rule: how well gzip compresses the tokens of a probe trajectory, and the search for a rule in a band.

The score is the size of the gzip stream (deflate at level 9, 18 bytes of header and trailer) over the raw size of the patch
tokens of ten frames as little-endian int32, delimiters left out. The size is computed here (deflate.py): no library is asked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.config import DELIMITERS, NCAConfig, format_setting
from megatron_nca.automaton.philox import MAX_ATTEMPTS
from megatron_nca.automaton.tokens import encode_patches
from megatron_nca.errors import ConfigError

PROBE_FRAMES = 10
GZIP_EXTRA = 12
"""A gzip stream wraps the deflated data in 18 bytes, a zlib stream in 6."""
MAX_SIZE = 2**40
"""A size above that of any probe, in bytes."""

Indices = npt.NDArray[np.int64]


def gzip_size(data: bytes) -> int:
    """Return the size in bytes of the gzip stream of ``data``, no file name in its header."""
    # Numba comes with it, see ``source``.
    from megatron_nca.automaton.deflate import deflated_size

    return deflated_size(data) + GZIP_EXTRA


def probe_bytes(config: NCAConfig) -> int:
    """Return the raw size of a probe, by which a compressed one is divided."""
    return 4 * PROBE_FRAMES * (config.frame_length - DELIMITERS)


def sizes_in_band(band: tuple[float, float], raw: int) -> tuple[int, int]:
    """Return the least and the greatest size of a gzip stream whose ratio to ``raw`` bytes lies inside a band.

    The ratio is the float64 quotient, so these are found with it; the first is above the second where no size lies inside.
    """
    lo, hi = band
    least, most = int(min(lo * raw, MAX_SIZE)) - 2, int(min(hi * raw, MAX_SIZE)) + 2
    while not least / raw > lo and least < MAX_SIZE:
        least += 1
    while not most / raw < hi and most > 0:
        most -= 1
    return least, most


def gzip_ratio(config: NCAConfig, grids: npt.NDArray[np.uint8]) -> float:
    """Score one trajectory.

    Args:
        config: Gives the patch.
        grids: uint8 (frames, grid, grid).

    Returns:
        Compressed over raw size.
    """
    raw = encode_patches(config, grids).astype("<i4").tobytes()
    return gzip_size(raw) / len(raw)


class BandSearch:
    """Finds, for each rule number, the first candidate rule whose score lies in the config's band.

    Args:
        config: The process and its band.
    """

    def __init__(self, config: NCAConfig) -> None:
        self.config = config

    def accepts(self, patches: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Tell which probes lie in the band.

        Args:
            patches: Patch tokens of probes, int32 (batch, tokens).

        Returns:
            bool (batch,).
        """
        if self.config.gzip is None:
            return np.ones(len(patches), dtype=bool)
        lo, hi = self.config.gzip
        raw = patches.astype("<i4", copy=False)
        length = raw.shape[1] * raw.itemsize
        return np.array([lo < gzip_size(row.tobytes()) / length < hi for row in raw], dtype=bool)

    def first_accepted(self, rules: Indices, accepted: Callable[[Indices, Indices], npt.NDArray[np.bool_]]) -> Indices:
        """Search candidates 0, 1, 2, ... of each rule number.

        Args:
            rules: Rule numbers, int64 (batch,).
            accepted: Tells which of (rules, attempts) lie in the band.

        Returns:
            The first accepted attempt of each, int64 (batch,).

        Raises:
            ConfigError: 65,536 candidates of a rule number all lie outside the band.
        """
        attempts = np.zeros(len(rules), dtype=np.int64)
        if self.config.gzip is None:
            return attempts
        pending = np.arange(len(rules))
        while len(pending):
            pending = pending[~accepted(rules[pending], attempts[pending])]
            attempts[pending] += 1
            if (attempts >= MAX_ATTEMPTS).any():
                raise out_of_band(self.config, MAX_ATTEMPTS)
        return attempts


def out_of_band(config: NCAConfig, candidates: int) -> ConfigError:
    """Return the error for a band that holds no rules."""
    return ConfigError(
        "gzip",
        format_setting(config.gzip),
        f"none of {candidates:,} random rules has a compression ratio in this band with these settings; "
        "give a wider band, or gzip=none",
    )
