"""ScheduledDataset: the top-level dataset of a run with a curriculum.

A sample holds what GPTDataset's holds and nothing else. Megatron's BlendedDataset adds a ``dataset_id`` of one dimension; from
0.18 on Megatron-LM hands a loader's whole dict to the context-parallel slicer, which cuts dimension 1 of everything in it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.datasets.utils import Split

from megatron_nca.data.curriculum import Plan
from megatron_nca.data.run import Run

logger = logging.getLogger(__name__)

BLENDS_ONLY = "dataset_id"
"""The key that a BlendedDataset adds to its members' samples."""


class LoopReminder:
    """Tells, once, a loop that reads a plan's samples and has not undertaken to call the transition.

    Args:
        run: The run whose datasets are read.
        plan: The run's training plan.
    """

    def __init__(self, run: Run, plan: Plan) -> None:
        self._run: Run | None = run
        self._switch = plan.switch

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker gets a copy of the dataset, and none of the run with its model.
        return {"_run": None, "_switch": self._switch}

    def sample_is_read(self) -> None:
        """Warn at the first sample of a process, on one rank and one worker."""
        run, self._run = self._run, None
        worker = torch.utils.data.get_worker_info()
        if run is None or run.is_driven or self._switch is None or os.environ.get("RANK", "0") != "0":
            return
        if worker is None or worker.id == 0:
            logger.warning(
                "megatron-nca: the data go over to text after %s samples, and nothing undertakes to carry the model across: "
                "keep the run that megatron_nca.register() returns, call its restore(None, 0) before a fresh start, and its "
                "before_step(consumed, model, optimizer, scheduler) before every step",
                f"{self._switch:,}",
            )


class ScheduledDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Position in the run -> sample, through the plan's schedule.

    It takes the place of Megatron's BlendedDataset, whose members must be of one type and whose index arrays grow with the
    run. Which source a position is read from says ``plan.schedule.locate``.

    Args:
        plan: The curriculum laid out over the run.
        datasets: One for each source of the plan, in order.
        split: Which split this is.
        reminder: Called with the first sample that is read, or None.

    Raises:
        ValueError: The number of datasets is not the number of sources.
    """

    def __init__(self, plan: Plan, datasets: Sequence[Any], split: Split, reminder: LoopReminder | None = None) -> None:
        if len(datasets) != plan.schedule.sources:
            raise ValueError(f"{len(datasets)} datasets for {plan.schedule.sources} sources")
        self.plan = plan
        self.datasets = tuple(datasets)
        self.split = split
        self._reminder = reminder
        self.index_split = split

    def __len__(self) -> int:
        return self.plan.samples

    def __getitem__(self, idx: int | None) -> dict[str, Any]:
        """Return the sample at a position; None asks for a padding sample, as in GPTDataset.

        Raises:
            IndexError: The position lies outside the run.
        """
        if idx is None:
            first = next(dataset for dataset in self.datasets if dataset is not None)
            return _as_gpt_dataset_has_it(first[None])
        if not 0 <= idx < len(self):
            raise IndexError(f"position {idx} of a run of {len(self):,} samples")
        if self._reminder is not None:
            self._reminder.sample_is_read()
            self._reminder = None
        source, index = self.plan.schedule.locate(int(idx))
        if self.datasets[source] is None:
            raise IndexError(
                f"position {idx} was read before the data path was changed, from {self.plan.source_name(source)!r}"
            )
        return _as_gpt_dataset_has_it(self.datasets[source][index])


class PlainBlend(torch.utils.data.Dataset[dict[str, Any]]):
    """Megatron's BlendedDataset, its samples like those of its members.

    Validation and test of a curriculum whose text is a blend; so the run does not train for hours under context parallelism
    and fail at its first validation.

    Args:
        blend: The BlendedDataset.
    """

    def __init__(self, blend: Any) -> None:
        self.blend = blend
        self.split = blend.split
        self.index_split = blend.split

    def __len__(self) -> int:
        return len(self.blend)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return _as_gpt_dataset_has_it(self.blend[idx])


def _as_gpt_dataset_has_it(sample: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sample.items() if key != BLENDS_ONLY}
