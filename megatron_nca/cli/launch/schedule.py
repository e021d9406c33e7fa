"""A run's learning rate and batches as Megatron-Core makes them of a launch's words, where Megatron-Core is not.

Tests hold each equal to Megatron-Core's own, where that is installed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class Schedule:
    """The learning rate over a run, with the names and the law of Megatron's OptimizerParamScheduler.

    Attributes:
        init_lr: Learning rate at which the warm-up begins.
        max_lr: Peak.
        min_lr: End of the decay.
        lr_warmup_steps: Length of the warm-up, in samples.
        lr_decay_steps: Step at which the decay ends.
        lr_decay_style: ``constant``, ``linear``, ``cosine``, ``inverse-square-root`` or ``WSD``.
        wsd_decay_steps: Length of WSD's final decay.
        lr_wsd_decay_style: Shape of that decay.
        optimizer: Parameter groups, for what looks at them.
        num_steps: Consumed samples.
    """

    init_lr: float
    max_lr: float
    min_lr: float
    lr_warmup_steps: float
    lr_decay_steps: int
    lr_decay_style: str
    wsd_decay_steps: int | None = None
    lr_wsd_decay_style: str | None = None
    optimizer: Any = field(default_factory=lambda: SimpleNamespace(param_groups=[]))
    num_steps: int = 0
    start_wd: float = 0.0
    end_wd: float = 0.0
    wd_incr_steps: int = 1
    wd_incr_style: str = "constant"

    def get_lr(self, group: dict[str, Any]) -> float:
        """Return the rate at ``num_steps`` of a parameter group with a peak and an end of its own, or the run's."""
        peak, end = group.get("max_lr", self.max_lr), group.get("min_lr", self.min_lr)
        if self.lr_warmup_steps > 0 and self.num_steps <= self.lr_warmup_steps:
            return float(self.init_lr + (peak - self.init_lr) * float(self.num_steps) / float(self.lr_warmup_steps))
        if self.lr_decay_style == "constant":
            return float(peak)
        if self.num_steps > self.lr_decay_steps:
            return float(end)
        if self.lr_decay_style == "inverse-square-root":
            return float(max(end, peak * max(self.lr_warmup_steps, 1) ** 0.5 / max(self.num_steps, 1) ** 0.5))
        return float(end + self._share() * (peak - end))

    def _share(self) -> float:
        """Return the share of the way from end to peak."""
        if self.lr_decay_style == "WSD":
            assert self.wsd_decay_steps is not None
            begin = self.lr_decay_steps - self.wsd_decay_steps
            if self.num_steps <= begin:
                return 1.0
            return _DECAYS[self.lr_wsd_decay_style or "exponential"]((self.num_steps - begin) / self.wsd_decay_steps)
        return _DECAYS[self.lr_decay_style](
            (self.num_steps - self.lr_warmup_steps) / (self.lr_decay_steps - self.lr_warmup_steps)
        )

    def get_wd(self, group: dict[str, Any] | None = None) -> float:
        """Return the weight decay, which a plan does not show."""
        return self.end_wd

    def step(self, increment: int) -> None:
        """Go on by so many samples."""
        self.num_steps += increment


_DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (math.cos(math.pi * done) + 1.0),
    "exponential": lambda done: 2.0 * math.pow(0.5, done) - 1.0,
    "minus_sqrt": lambda done: 1.0 - math.sqrt(done),
}


@dataclass
class RampupBatches:
    """Batches that grow, with the names and the law of Megatron's calculator of ``--rampup-batch-size``.

    Attributes:
        start: Samples of the first batch.
        increment: Samples by which they grow.
        ramup_samples: Over how many samples.
        end: Samples of a batch behind that.

    Raises:
        ValueError: The numbers do not go together.
    """

    start: int
    increment: int
    ramup_samples: int
    end: int
    size: int = 0

    def __post_init__(self) -> None:
        if self.start >= self.end or (self.end - self.start) % self.increment:
            raise ValueError(f"from {self.start} no whole number of increments of {self.increment} leads to {self.end}")

    def update(self, consumed: int, consistency_check: bool) -> None:
        """Take a position."""
        each = self.ramup_samples / ((self.end - self.start) // self.increment)
        grown = consumed > self.ramup_samples or not each
        self.size = self.end if grown else self.start + int(consumed / each) * self.increment

    def get_current_running_global_batch_size(self) -> int:
        """Return the size of a batch that begins at the position."""
        return self.size


def stepwise_sizes(schedule: str, sequence_length: int) -> tuple[tuple[int, int], ...]:
    """Return the batch sizes of ``--step-batch-size-schedule``: ``TOKENS:SIZE TOKENS:SIZE ...``, as (position, size) pairs.

    Raises:
        ValueError: It is none.
    """
    pairs = [part.partition(":") for part in schedule.replace(",", " ").split()]
    sizes = sorted((_number(tokens) // sequence_length, _number(size)) for tokens, _, size in pairs)
    positions = [position for position, _ in sizes]
    if not sizes or positions[0] != 0 or len(set(positions)) < len(positions) or min(size for _, size in sizes) < 1:
        raise ValueError("must be TOKENS:SIZE pairs in rising order, the first of 0 tokens")
    return tuple(sizes)


def split_parts(split: str) -> list[tuple[float, float] | None]:
    """Return which part of a text each of train, valid and test has under ``--split``, as Megatron's split matrix has it.

    Raises:
        ValueError: It is not up to three numbers that are not all 0.
    """
    shares = [float(share) for share in re.findall(r"[.0-9]+", split)]
    shares += [0.0] * (3 - len(shares))
    if len(shares) > 3 or not sum(shares) or not math.isfinite(sum(shares)):
        raise ValueError("must be three numbers, as in 969,30,1")
    total, parts, end = sum(shares), [], 0.0
    for share in shares:
        begin, end = end, end + share / total
        parts.append((begin, end) if end > begin else None)
    return parts


def _number(text: str) -> int:
    units = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
    unit = units.get(text[-1:].upper(), 1)
    return int(float(text[:-1] if unit > 1 else text) * unit)
