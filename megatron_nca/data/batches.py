"""Where global batches begin: a phase may end there and nowhere else, lest one optimizer step mix two phases."""

from __future__ import annotations

import copy
from typing import Any


class BatchBoundaries:
    """Global batches of one size, or of Megatron's growing sizes (``--rampup-batch-size``, ``--step-batch-size-schedule``).

    Args:
        warmup: Samples at which each batch of the growing part begins, ending with the first position after it.
        batch_size: Samples of every later batch.
    """

    def __init__(self, batch_size: int = 1, warmup: tuple[int, ...] = (0,)) -> None:
        self.batch_size = batch_size
        self.warmup = warmup

    def round_up(self, samples: int) -> int:
        """Return the first boundary at or after a number of consumed samples."""
        constant_from = self.warmup[-1]
        if samples > constant_from:
            return constant_from + -(-(samples - constant_from) // self.batch_size) * self.batch_size
        return next(boundary for boundary in self.warmup if boundary >= samples)

    def batches_until(self, samples: int) -> int:
        """Return how many batches, and so iterations, end at or before a boundary."""
        constant_from = self.warmup[-1]
        if samples > constant_from:
            return len(self.warmup) - 1 + (samples - constant_from) // self.batch_size
        return sum(boundary <= samples for boundary in self.warmup) - 1

    @classmethod
    def from_megatron(cls, consumed_samples: int = 0) -> BatchBoundaries:
        """Read them off Megatron-Core's microbatch calculator; every sample is a boundary where none is set up.

        Args:
            consumed_samples: Where this start of the run begins. Batches are counted from there, since their size may have
                been another before.
        """
        from megatron.core import num_microbatches_calculator as module

        calculator = module._GLOBAL_NUM_MICROBATCHES_CALCULATOR
        if calculator is None:
            return cls()
        growing_samples = getattr(calculator, "ramup_samples", None)
        if schedule := getattr(calculator, "schedule", None):
            # --step-batch-size-schedule, since 0.18: pairs of first sample and batch size.
            growing_samples = schedule[-1][0]
        if growing_samples is None:
            return cls(calculator.get_current_running_global_batch_size(), (consumed_samples,))
        return cls._from_growing(copy.copy(calculator), growing_samples, consumed_samples)

    @classmethod
    def _from_growing(cls, calculator: Any, growing_samples: int, consumed_samples: int) -> BatchBoundaries:
        boundaries = [consumed_samples]
        while boundaries[-1] <= growing_samples:
            calculator.update(boundaries[-1], False)
            boundaries.append(boundaries[-1] + calculator.get_current_running_global_batch_size())
        calculator.update(boundaries[-1], False)
        return cls(calculator.get_current_running_global_batch_size(), tuple(boundaries))
