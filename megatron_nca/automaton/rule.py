"""A rule: the random transition network of one automaton, as integers.

The network (NCA.md; the released code's ``NCANetwork``) is a 3 x 3 convolution to 4 features, a 1 x 1 to 16 hidden units,
ReLU, and a 1 x 1 to one logit a colour, without biases. Two properties make it exact and cheap:

* The first two layers are linear and their input is one-hot, so together they are one table: what a neighbour of a colour
  adds to the hidden units.
* ReLU commutes with a positive factor, so the layers' standard deviations sqrt(1 / fan_in) and the fixed-point scales are
  one factor c of the logits, and a draw with temperature T is a draw from the integer network with temperature T / c.

Kernels are drawn with unit variance from ``weight_table``; the table is rounded to 2**-5, the readout to 2**-5. A weight is
below 2.274 in magnitude, so a table entry is below 1324, a hidden unit below 11917 and a logit below 2**24: every engine may
use float32 as well as integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton import philox
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.philox import Key, Purpose
from megatron_nca.automaton.tables import WEIGHT_BITS, weight_table

NEIGHBOURHOOD = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
FEATURES = 4
HIDDEN = 16

TABLE_BITS = 5
READOUT_BITS = 5


@dataclass(frozen=True)
class Rules:
    """A batch of rules.

    Attributes:
        table: int32 (batch, 9, colors, 16); what a neighbour at each place adds to the hidden units, by its colour.
        readout: int32 (batch, 16, colors); what an active hidden unit adds to each colour's logit.
    """

    table: npt.NDArray[np.int32]
    readout: npt.NDArray[np.int32]


def weight_count(colors: int) -> int:
    """Number of weights of a rule: both 1 x 1 kernels and the 3 x 3 kernel over the wrapped channels."""
    return len(NEIGHBOURHOOD) * (colors + 2) * FEATURES + FEATURES * HIDDEN + HIDDEN * colors


def logit_scale(colors: int) -> float:
    """Integer units in one unit of the paper's logits, 1 / c.

    IEEE 754 rounds a square root and a product correctly, so this float is the same everywhere.
    """
    fan_in = len(NEIGHBOURHOOD) * (colors + 2)
    return 2.0 ** (TABLE_BITS + READOUT_BITS) * math.sqrt(FEATURES * HIDDEN) * math.sqrt(fan_in)


def sample_rules(config: NCAConfig, key: Key, index: npt.NDArray[np.int64], attempt: npt.NDArray[np.int64] | int = 0) -> Rules:
    """Draw rules.

    Args:
        config: Gives the number of colours.
        key: Key of the random stream, two uint32 words.
        index: Rule numbers, int64 (batch,).
        attempt: Which candidate for each rule number, a scalar or int64 (batch,).

    Returns:
        The rules, in the order of ``index``.
    """
    colors, batch = config.colors, len(index)
    drawn = philox.draws(key, Purpose.WEIGHTS, weight_count(colors), index, attempt)
    weights = weight_table()[drawn].astype(np.int64)
    kernel, mixing, readout = np.split(
        weights, np.cumsum([len(NEIGHBOURHOOD) * (colors + 2) * FEATURES, FEATURES * HIDDEN]), axis=1
    )
    kernel = _unwrap_channels(kernel.reshape(batch, len(NEIGHBOURHOOD), colors + 2, FEATURES))
    table = kernel @ mixing.reshape(batch, 1, FEATURES, HIDDEN)
    return Rules(
        table=_round_shift(table, 2 * WEIGHT_BITS - TABLE_BITS),
        readout=_round_shift(readout.reshape(batch, HIDDEN, colors), WEIGHT_BITS - READOUT_BITS),
    )


def _unwrap_channels(kernel: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Fold the wrapped channels [last, 0 .. K-1, first] onto the colours (..., K + 2, features) -> (..., K, features).

    The released code pads its input with wrap-around on the channel axis too, so the first and the last colour are each
    seen through the sum of two weights.
    """
    folded: npt.NDArray[np.int64] = kernel[..., 1:-1, :].copy()
    folded[..., -1, :] += kernel[..., 0, :]
    folded[..., 0, :] += kernel[..., -1, :]
    return folded


def _round_shift(value: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int32]:
    """Divide by 2**bits, rounding half up."""
    return ((value + (1 << (bits - 1))) >> bits).astype(np.int32)
