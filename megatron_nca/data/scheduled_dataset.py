"""ScheduledDataset: the top-level dataset of a run with a curriculum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.datasets.utils import Split

from megatron_nca.data.curriculum import Plan


class ScheduledDataset(torch.utils.data.Dataset):
    """Position in the run -> sample, through the plan's schedule.

    It takes the place of Megatron's BlendedDataset, whose members must be of one type and whose index arrays grow with the
    run. A sample carries ``dataset_id`` as a BlendedDataset's does: the number of its ``nca:`` entry in the data path, or
    the number of entries plus the text's own.

    Args:
        plan: The curriculum laid out over the run.
        datasets: One for each source of the plan, in order.
        split: Which split this is.

    Raises:
        ValueError: The number of datasets is not the number of sources.
    """

    def __init__(self, plan: Plan, datasets: Sequence[Any], split: Split) -> None:
        if len(datasets) != plan.schedule.sources:
            raise ValueError(f"{len(datasets)} datasets for {plan.schedule.sources} sources")
        self.plan = plan
        self.datasets = tuple(datasets)
        self.split = split
        self.index_split = split

    def __len__(self) -> int:
        return self.plan.samples

    def __getitem__(self, idx: int | None) -> dict[str, Any]:
        """Return the sample at a position; None asks for a padding sample, as in GPTDataset.

        Raises:
            IndexError: The position lies outside the run.
        """
        if idx is None:
            return {**self.datasets[0][None], "dataset_id": 0}
        if not 0 <= idx < len(self):
            raise IndexError(f"position {idx} of a run of {len(self):,} samples")
        source, index = self.plan.schedule.locate(int(idx))
        sample = self.datasets[source][index]
        return {**sample, "dataset_id": source + int(sample.get("dataset_id", 0))}
