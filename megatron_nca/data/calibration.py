"""The complexity of a tokenised text, measured as the paper measures a rule's, and the band of rules that matches it.

A rule is scored on the patch tokens of ten frames as little-endian int32 (complexity.py); a text on windows of as many of its
own tokens, in the same form. The band holds the middle four fifths of the windows, rounded outwards to whole percents, and is
at least five percents wide. Counted in whole bytes and percents, it is the same on every rank.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.complexity import PROBE_FRAMES, gzip_size
from megatron_nca.automaton.config import DELIMITERS, NCAConfig
from megatron_nca.data.sequence_statistics import SequenceStatistics
from megatron_nca.errors import NCAError

WINDOWS = 1000
LEAST_WINDOWS = 20
LEAST_ACCEPTANCE = 0.01
"""Least acceptance: below it generating costs a hundred candidates a trajectory."""
LEAST_WIDTH = 5
"""Least width of a band, in percent: a text of one kind must not leave a handful of rules."""

MAGIC = b"MMIDIDX\x00\x00"
DTYPES: Mapping[int, str] = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""Megatron's codes of the types of a token (``DType`` in indexed_dataset.py)."""


@dataclass(frozen=True)
class Calibration:
    """What was measured of a text.

    Attributes:
        prefix: Prefix of its ``.bin`` and ``.idx``.
        tokens: How many it has.
        window: Tokens of a window.
        sizes: Compressed bytes of the windows, int64 (windows,), ascending.
        band: Band of compression ratios that matches.
    """

    prefix: str
    tokens: int
    window: int
    sizes: npt.NDArray[np.int64]
    band: tuple[float, float]

    @property
    def ratios(self) -> npt.NDArray[np.float64]:
        """Compressed over raw size of the windows, float64 (windows,), ascending."""
        return self.sizes / (4 * self.window)


@dataclass(frozen=True)
class Match:
    """A text beside random rules.

    Attributes:
        text: What was measured of the text.
        rules: Ratios of random rules, float64 (rules,).
        text_statistics: Statistics of sequences of the text.
        nca_statistics: Statistics of trajectories of the text's band; of random rules, where the band holds hardly any.
    """

    text: Calibration
    rules: npt.NDArray[np.float64]
    text_statistics: SequenceStatistics
    nca_statistics: SequenceStatistics

    @property
    def acceptance(self) -> float:
        """Share of random rules in the text's band."""
        return acceptance(self.rules, self.text.band)

    @property
    def good(self) -> bool:
        """Whether the band can be used."""
        return self.acceptance >= LEAST_ACCEPTANCE


def acceptance(ratios: npt.NDArray[np.float64], band: tuple[float, float]) -> float:
    """Return the share of ratios that lie in a band."""
    return float(((ratios > band[0]) & (ratios < band[1])).mean())


def probe_tokens(config: NCAConfig) -> int:
    """Return the tokens of the probe on which a rule is scored, and so of a window."""
    return PROBE_FRAMES * (config.frame_length - DELIMITERS)


def calibrate(prefix: str, window: int) -> Calibration:
    """Measure a text.

    Args:
        prefix: Prefix of its ``.bin`` and ``.idx``, as in a data path.
        window: Tokens of a window.

    Returns:
        What was measured, on up to 1,000 windows evenly spread over the text.

    Raises:
        NCAError: There is no such text, it is not Megatron's, or it is too short.
    """
    try:
        stamp = Path(f"{prefix}.bin").stat()
        return _calibrate(prefix, window, (stamp.st_mtime_ns, stamp.st_size))
    except OSError as error:
        raise NCAError(f"{prefix}: no tokenised text there ({error}); give the prefix of a .bin and .idx") from None


@lru_cache(maxsize=16)
def _calibrate(prefix: str, window: int, stamp: tuple[int, int]) -> Calibration:
    # The stamp parts texts that were written one after the other under one name.
    dtype = token_type(Path(f"{prefix}.idx"))
    if stamp[1] < LEAST_WINDOWS * window * dtype.itemsize:
        raise NCAError(
            f"{prefix}: holds {stamp[1] // dtype.itemsize:,} tokens, too few to measure; {LEAST_WINDOWS} windows of {window:,} "
            f"need {LEAST_WINDOWS * window:,}"
        )
    tokens = np.memmap(f"{prefix}.bin", dtype=dtype, mode="r")
    count = min(len(tokens) // window, WINDOWS)
    begins = [place * (len(tokens) - window) // (count - 1) for place in range(count)]
    sizes = sorted(gzip_size(tokens[begin : begin + window].astype("<i4").tobytes()) for begin in begins)
    return Calibration(prefix, len(tokens), window, np.array(sizes), matching_band(sizes, 4 * window))


def text_sequences(prefix: str, length: int, most: int) -> npt.NDArray[np.int64]:
    """Return sequences of a text, evenly spread over it; the whole of one that is shorter.

    Args:
        prefix: Prefix of its ``.bin`` and ``.idx``; ``calibrate`` has read it.
        length: Tokens of a sequence.
        most: How many at most.

    Returns:
        int64 (batch, length).
    """
    tokens = np.memmap(f"{prefix}.bin", dtype=token_type(Path(f"{prefix}.idx")), mode="r")
    length = min(length, len(tokens))
    count = max(min(len(tokens) // length, most), 1)
    begins = [place * (len(tokens) - length) // max(count - 1, 1) for place in range(count)]
    return np.array([tokens[begin : begin + length] for begin in begins], dtype=np.int64)


def matching_band(sizes: list[int], raw: int) -> tuple[float, float]:
    """Return the band of the middle four fifths.

    Args:
        sizes: Compressed bytes of windows, ascending.
        raw: Bytes of a window.
    """
    tenth = len(sizes) // 10
    lo, hi = 100 * sizes[tenth] // raw, -(-100 * sizes[-1 - tenth] // raw)
    missing = max(LEAST_WIDTH - (hi - lo), 0)
    lo = max(lo - missing // 2, 0)
    hi = max(hi + missing - missing // 2, lo + LEAST_WIDTH)
    return lo / 100, hi / 100


def token_type(index: Path) -> np.dtype:
    """Return the type of a text's token ids, as its index names it.

    Raises:
        NCAError: It is no index of Megatron's, or of a newer form.
    """
    with open(index, "rb") as file:
        header = file.read(len(MAGIC) + 9)
    if len(header) < len(MAGIC) + 9 or not header.startswith(MAGIC):
        raise NCAError(f"{index}: is no index of Megatron's; make one with its tools/preprocess_data.py")
    version, code = struct.unpack("<QB", header[len(MAGIC) :])
    if version != 1 or code not in DTYPES:
        raise NCAError(f"{index}: has version {version} and token type {code}, which are not known here")
    return np.dtype(DTYPES[code])
