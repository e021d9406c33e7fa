"""The learning rate under ``restart`` in NeMo, whose schedulers are torch's and count steps.

    before the switch   step n             peak nca_lr, warm-up over a tenth, decay over the phases
    from the switch on  step n - switch    the recipe's peak and warm-up, decay over max_steps - switch

A scheduler is given another class and no attribute, since torch writes every attribute of it to checkpoints.
"""

from __future__ import annotations

import copy
from typing import Any

from megatron_nca.errors import NCAError
from megatron_nca.training.learning_rate import WARMUP_FRACTION, PhaseLearningRate

NEEDED = ("max_steps", "warmup_steps", "min_lr", "base_lrs", "last_epoch")


def install(scheduler: Any, switch: int, phase: PhaseLearningRate, warmup_steps: int | None = None) -> None:
    """Give a scheduler two schedules, and set the rates of the coming step.

    Args:
        scheduler: One of ``nemo.core.optim.lr_scheduler`` with a warm-up and an end.
        switch: Step at which the text begins.
        phase: The NCA phases' schedule.
        warmup_steps: Its warm-up, or None for a tenth.

    Raises:
        NCAError: The scheduler is of another kind, or a part too short for its warm-up.
    """
    missing = [name for name in NEEDED if getattr(scheduler, name, None) is None]
    if missing:
        raise NCAError(
            f"learning rate: {type(scheduler).__name__} has no {missing[0]}, so it cannot be restarted at the switch; use a "
            "scheduler with warm-up and max_steps, such as CosineAnnealingScheduler, or nca_lr_at_switch='continue'"
        )
    warmup = int(WARMUP_FRACTION * switch) if warmup_steps is None else warmup_steps
    _check(scheduler, switch, warmup)
    original = type(scheduler)

    def get_lr(self: Any) -> list[float]:
        part = copy.copy(self)
        part.__class__ = original
        part._get_lr_called_within_step = True
        if self.last_epoch < switch:
            _shape_phase(part, switch, warmup, phase)
        else:
            part.last_epoch -= switch
            part.max_steps -= switch
            part.decay_steps = part.max_steps - part.warmup_steps - (getattr(part, "constant_steps", None) or 0)
        return original.get_lr(part)

    scheduler.__class__ = type(original.__name__, (original,), {"get_lr": get_lr, "__module__": original.__module__})
    rates = scheduler.get_lr()
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = list(rates)


def _shape_phase(part: Any, switch: int, warmup: int, phase: PhaseLearningRate) -> None:
    highest = max(part.base_lrs)
    ratio = 1.0 if phase.peak is None or not highest else phase.peak / highest
    part.base_lrs = [rate * ratio for rate in part.base_lrs]
    minimum = part.min_lr if phase.minimum is None else phase.minimum
    part.min_lr = min(minimum, *part.base_lrs)
    part.max_steps, part.warmup_steps = switch, warmup
    part.constant_steps, part.decay_steps = 0, switch - warmup


def _check(scheduler: Any, switch: int, warmup: int) -> None:
    if warmup >= switch:
        raise NCAError(
            f"learning rate: a warm-up of {warmup:,} steps does not fit the NCA phases, which end after {switch:,}; give "
            "nca_lr_warmup_steps less than that"
        )
    needed = scheduler.warmup_steps + (getattr(scheduler, "constant_steps", None) or 0)
    remaining = scheduler.max_steps - switch
    if needed >= remaining:
        raise NCAError(
            f"learning rate: {max(remaining, 0):,} steps remain after the switch at step {switch:,}, too few for warm-up and "
            f"constant steps of {needed:,}; raise trainer.max_steps, shorten optim.lr_scheduler.warmup_steps, or keep one "
            "schedule with nca_lr_at_switch='continue'"
        )
