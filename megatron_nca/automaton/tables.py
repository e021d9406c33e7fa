"""Quantile tables: a 16-bit draw u stands for the probability (u + 1/2) / 2**16.

The entries are fixed-point integers, so that whatever is made of them is exact. They come from transcendental functions,
whose last bit differs between libraries; a stored digest of each table proves that this machine has the same integers as
every other, and refuses to go on where it has not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from megatron_nca.errors import EnvironmentMismatchError

DRAW_VALUES = 2**16

TRUNCATION = 2.0
TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a normal truncated at two: Kernels are divided by it (Flax's ``lecun_normal``)."""

WEIGHT_BITS = 12
GUMBEL_BITS = 16
ODDS_BITS = 16

Table = npt.NDArray[np.int32]


@cache
def weight_table() -> Table:
    """Quantiles of the unit-variance normal truncated at two deviations, times 2**12; int32, shape (65536,)."""
    normal = NormalDist()
    low, high = normal.cdf(-TRUNCATION), normal.cdf(TRUNCATION)
    probability = low + (high - low) * _midpoints()
    quantile = np.array([normal.inv_cdf(p) for p in probability.tolist()]) / TRUNCATED_STD
    return _checked(weight_table, quantile * 2**WEIGHT_BITS)


@cache
def odds_table() -> Table:
    """Quantiles of exp(z), z standard normal, times 2**16: a colour's odds in the initial state; int32, (65536,)."""
    normal = NormalDist()
    quantile = np.array([normal.inv_cdf(p) for p in _midpoints().tolist()])
    return _checked(odds_table, np.exp(quantile) * 2**ODDS_BITS)


@cache
def gumbel_table() -> Table:
    """Quantiles of the standard Gumbel distribution, -log(-log p), times 2**16; int32, shape (65536,)."""
    return _checked(gumbel_table, -np.log(-np.log(_midpoints())) * 2**GUMBEL_BITS)


DIGESTS = {
    "weight_table": "bbc873bf18a9103498c4d53f933a104b6fb2da08e415bb80f8240f368f8c3d4d",
    "odds_table": "17ac69554be01a9e4335966c00c55bbbb089a7ddd76e29eced4200ba26e84057",
    "gumbel_table": "fc2d8ed7fe9b4cbc3b95bcc8c5a35b0f8f7c8897e9d9e4f3e42501a83d059cc8",
}
"""SHA-256 of each table as little-endian int32."""


def digest(table: Table) -> str:
    """Return the SHA-256 of a table's little-endian bytes, in hexadecimal."""
    return hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()


def _midpoints() -> npt.NDArray[np.float64]:
    return (np.arange(DRAW_VALUES) + 0.5) / DRAW_VALUES


def _checked(maker: Callable[[], Table], values: npt.NDArray[np.float64]) -> Table:
    table = np.rint(values).astype(np.int32)
    table.flags.writeable = False
    expected = DIGESTS[maker.__name__]
    if digest(table) != expected:
        raise EnvironmentMismatchError(
            f"{maker.__name__}: digest {digest(table)} instead of {expected}. This machine's mathematical library "
            f"(numpy {np.__version__}) rounds differently from the one the tables were fixed with, so its tokens would "
            "differ from other machines'. Run every rank from one image with a current numpy and libm."
        )
    return table
