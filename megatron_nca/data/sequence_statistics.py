"""What sequences of tokens look like in four ways, by which NCA is laid beside a text.

Within one sequence each, then averaged:

* frequency: the share p_r of the most frequent token, of the second, and so on;
* entropy: -sum p log2 p, in bits;
* autocorrelation at a distance d: how much more often t_i = t_(i+d) than by chance, which is sum p**2;
* change: the share of tokens that differ from the one a frame before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RANKS = 200
DISTANCES = 100


@dataclass(frozen=True)
class SequenceStatistics:
    """Means over sequences.

    Attributes:
        entropy: Entropy of a sequence's tokens, in bits.
        change: Share of tokens that differ from the token one frame before.
        frequency: Share of the token of each rank, float64 (ranks,), the most frequent first.
        autocorrelation: At distances 1, 2, ..., float64 (distances,); 0 is chance.
    """

    entropy: float
    change: float
    frequency: npt.NDArray[np.float64]
    autocorrelation: npt.NDArray[np.float64]

    def as_dict(self) -> dict[str, Any]:
        """Return them by name, in plain numbers."""
        return {
            "entropy": self.entropy,
            "change": self.change,
            "frequency": self.frequency.tolist(),
            "autocorrelation": self.autocorrelation.tolist(),
        }


def measure_sequences(sequences: npt.NDArray[np.integer], frame: int) -> SequenceStatistics:
    """Measure sequences.

    Args:
        sequences: Token ids, (batch, length); none below 0.
        frame: Tokens of a frame, less than ``length``: the distance over which change is told.

    Returns:
        Means over the batch.
    """
    length = sequences.shape[1]
    shares = [np.sort(np.unique(row, return_counts=True)[1])[::-1] / length for row in sequences]
    chance = np.array([(share**2).sum() for share in shares])
    frequency = np.zeros((len(shares), RANKS))
    for row, share in zip(frequency, shares, strict=True):
        row[: len(share)] = share[:RANKS]
    distances = range(1, min(DISTANCES, length - 1) + 1)
    equal = np.array([(sequences[:, distance:] == sequences[:, :-distance]).mean(axis=1) for distance in distances])
    return SequenceStatistics(
        entropy=float(np.mean([-(share * np.log2(share)).sum() for share in shares])) + 0.0,
        change=float((sequences[:, frame:] != sequences[:, :-frame]).mean()),
        frequency=frequency.mean(axis=0),
        autocorrelation=(equal - chance).mean(axis=1),
    )
