"""What trajectories look like in four numbers, and the same of the paper's released code.

* gzip ratio: compressed over raw size of the patch tokens;
* entropy of the colours over all cells and frames, in bits;
* cell change: mean share of cells that differ between consecutive frames;
* distinct patch tokens in the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.complexity import gzip_ratio
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.tokens import encode_patches


@dataclass(frozen=True)
class Statistics:
    """Means over trajectories of ten frames.

    Attributes:
        gzip_ratio: Compressed over raw size of the patch tokens.
        state_entropy: Entropy of the colours over all cells and frames, in bits.
        cell_change: Mean share of cells that differ between consecutive frames.
        distinct_tokens: Number of distinct patch tokens in the frames.
    """

    gzip_ratio: float
    state_entropy: float
    cell_change: float
    distinct_tokens: float

    def as_dict(self) -> dict[str, float]:
        """Return them by name."""
        return asdict(self)


PAPER: Mapping[tuple[float, float] | None, tuple[float, Statistics]] = {
    None: (1.0, Statistics(0.4078, 1.674, 0.577, 137.9)),
    (0.5, 1.0): (0.4634, Statistics(0.5728, 2.3454, 0.7665, 230.2)),
    (0.3, 0.4): (0.0903, Statistics(0.3562, 1.4609, 0.5524, 70.1)),
}
"""Band -> (share of random rules in it, means over them), of 8,000 trajectories that the released code made."""


def measure(config: NCAConfig, trajectories: npt.NDArray[np.uint8]) -> Statistics:
    """Measure trajectories, uint8 (batch, frames, grid, grid) with at least two frames."""
    rows = [
        (
            gzip_ratio(config, grids),
            entropy(grids),
            float((grids[1:] != grids[:-1]).mean()),
            float(len(np.unique(encode_patches(config, grids)))),
        )
        for grids in trajectories
    ]
    return Statistics(*(float(mean) for mean in np.mean(rows, axis=0)))


def entropy(grids: npt.NDArray[np.uint8]) -> float:
    """Return the entropy of the colours, in bits."""
    share = np.bincount(grids.ravel()) / grids.size
    return float(-(share[share > 0] * np.log2(share[share > 0])).sum()) + 0.0


def paper_statistics(config: NCAConfig) -> tuple[float, Statistics] | None:
    """Return (acceptance, statistics) of the released code, or None where they are not known for these settings."""
    if replace(config, gzip=None) != NCAConfig():
        return None
    return PAPER.get(config.gzip)
