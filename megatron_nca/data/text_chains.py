"""A text that was asked for more samples than at first: what was planned stays in its order, more lies behind it.

Megatron shuffles a text by how many samples are asked of it, so another count is another order. Here the first dataset keeps
its count and is read to its end, which may be some way beyond what was asked; whatever is wanted beyond that is a dataset of
its own behind it, with a shuffle of its own. A blend of Megatron's is read to its end, too; then each of its members goes on
where the blend has left it, in exact shares.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from megatron_nca.data.mixture import mixture_of, shares_of


class TextChain(torch.utils.data.Dataset[Any]):
    """Datasets of one text, one behind the other.

    Args:
        datasets: Datasets in order, each read whole before the next.
    """

    def __init__(self, datasets: Sequence[Any]) -> None:
        self.datasets = tuple(datasets)
        self._begins = [0, *accumulate(len(dataset) for dataset in datasets)]

    def __len__(self) -> int:
        return self._begins[-1]

    def __getitem__(self, idx: int | None) -> Any:
        """Return a sample; None asks for a padding sample, as in GPTDataset."""
        if idx is None:
            return self.datasets[0][None]
        place = bisect_right(self._begins, int(idx)) - 1
        if not 0 <= place < len(self.datasets):
            raise IndexError(f"sample {idx} of a text of {len(self):,}")
        return self.datasets[place][int(idx) - self._begins[place]]


class ContinuedBlend(torch.utils.data.Dataset[Any]):
    """Megatron's blend, and its members behind it.

    Args:
        blend: Megatron's BlendedDataset.
        members: Its members, each long enough for what is read behind it.
        weights: Weights of the members.
        length: Samples in all.
    """

    def __init__(self, blend: Any, members: Sequence[Any], weights: Sequence[float], length: int) -> None:
        self.blend, self.members, self._length = blend, tuple(members), length
        self._first = members_given(blend, len(blend))
        self._mixture = mixture_of(shares_of(weights))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, idx: int | None) -> Any:
        """Return a sample; None asks for a padding sample, as in GPTDataset."""
        if idx is None or idx < len(self.blend):
            return self.members[0][None] if idx is None else self.blend[int(idx)]
        member, index = self._mixture.locate(int(idx) - len(self.blend))
        return self.members[member][self._first[member] + index]


def members_given(blend: Any, samples: int) -> list[int]:
    """Return how many of a blend's first samples each member has given, read off Megatron's own index."""
    counts = np.bincount(np.asarray(blend.dataset_index[:samples], dtype=np.int64), minlength=len(blend.datasets))
    return [int(count) for count in counts]


def members_reached(blend: Any, weights: Sequence[float], samples: int) -> list[int]:
    """Return at which of its samples each member goes on after some samples of a blend, its continuation included."""
    given = members_given(blend, min(samples, len(blend)))
    behind = dict(mixture_of(shares_of(weights)).counts(max(samples - len(blend), 0)))
    return [count + behind[member] for member, count in enumerate(given)]
