"""The learning rate under ``restart`` in NeMo, whose schedulers are torch's and count steps.

    before the switch   step n             peak nca_lr, warm-up over a tenth, decay over the phases
    from the switch on  step n - switch    the recipe's peak and warm-up, decay over max_steps - switch

A scheduler is given another class and no attribute, since torch writes every attribute of it to checkpoints.
"""

from __future__ import annotations

import copy

from megatron_nca.errors import NCAError
from megatron_nca.interfaces.nemo import StepScheduler
from megatron_nca.stacks import NEMO
from megatron_nca.training.learning_rate import (
    WARMUP_FRACTION,
    PhaseLearningRate,
    SplitSchedule,
    check_decoupled,
    check_phase_warmup,
    check_text_part,
    is_decoupled,
)
from megatron_nca.training.options import Options

NEEDED = ("max_steps", "warmup_steps", "min_lr", "base_lrs", "last_epoch")


def install(scheduler: StepScheduler, switch: int, options: Options, step: int) -> None:
    """Give a scheduler two schedules, and set the rates of the coming step.

    Args:
        scheduler: One of ``nemo.core.optim.lr_scheduler`` with a warm-up and an end.
        switch: Step at which the text begins.
        options: The NCA phases' rates.
        step: The run's, at which the scheduler stands from now on, whatever of its state was loaded.

    Raises:
        NCAError: The scheduler is of another kind, or a part too short for its warm-up.
    """
    check_decoupled(scheduler.optimizer, PhaseLearningRate(decoupled_peak=options.decoupled_lr), NEMO)
    missing = [name for name in NEEDED if getattr(scheduler, name, None) is None]
    if missing:
        raise NCAError(
            f"learning rate: {type(scheduler).__name__} has no {missing[0]}, so it cannot be restarted at the switch; use a "
            "scheduler with warm-up and max_steps, such as CosineAnnealingScheduler, or "
            f"{NEMO.option('lr_at_switch', 'continue')}"
        )
    warmup = int(WARMUP_FRACTION * switch) if options.lr_warmup_steps is None else options.lr_warmup_steps
    check_phase_warmup(warmup, switch, "steps", NEMO.option("lr_warmup_steps"))
    needed = scheduler.warmup_steps + (getattr(scheduler, "constant_steps", None) or 0)
    check_text_part("warm-up and constant steps", needed, scheduler.max_steps - switch, switch, "steps", NEMO)
    original = type(scheduler)

    def get_lr(self: StepScheduler) -> list[float]:
        split = SplitSchedule(
            switch, _phase_schedule(self, original, switch, warmup, options), _text_schedule(self, original, switch)
        )
        return list(original.get_lr(split.moved(self.last_epoch, "last_epoch")))

    scheduler.__class__ = type(original.__name__, (original,), {"get_lr": get_lr, "__module__": original.__module__})
    scheduler.last_epoch = step
    rates = scheduler.get_lr()
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = list(rates)


def _part(scheduler: StepScheduler, original: type) -> StepScheduler:
    part = copy.copy(scheduler)
    part.__class__ = original
    part._get_lr_called_within_step = True
    return part


def _phase_schedule(scheduler: StepScheduler, original: type, switch: int, warmup: int, options: Options) -> StepScheduler:
    part = _part(scheduler, original)
    highest = max(part.base_lrs)
    ratio = 1.0 if options.lr is None or not highest else options.lr / highest
    part.base_lrs = [rate * ratio for rate in part.base_lrs]
    if options.decoupled_lr is not None:
        groups = scheduler.optimizer.param_groups
        rates = zip(groups, part.base_lrs, strict=True)
        part.base_lrs = [options.decoupled_lr if is_decoupled(group) else rate for group, rate in rates]
    minimum = part.min_lr if options.min_lr is None else options.min_lr
    part.min_lr = min(minimum, *part.base_lrs)
    part.max_steps, part.warmup_steps = switch, warmup
    part.constant_steps, part.decay_steps = 0, switch - warmup
    return part


def _text_schedule(scheduler: StepScheduler, original: type, switch: int) -> StepScheduler:
    part = _part(scheduler, original)
    part.max_steps -= switch
    part.decay_steps = part.max_steps - part.warmup_steps - (getattr(part, "constant_steps", None) or 0)
    return part
