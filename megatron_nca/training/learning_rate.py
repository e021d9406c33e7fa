"""The learning rate under ``restart``: the NCA phases have a schedule of their own, the text the run's, over what remains.

Megatron's OptimizerParamScheduler computes a rate from the samples consumed so far. Here its ``get_lr`` and ``get_wd`` are
answered by one of two copies of it, each with its own position and lengths:

    before the switch   position n             peak phase_lr, warm-up over a tenth, decay over the phases
    from the switch on  position n - switch    the run's peak and warm-up, decay over decay_steps - switch

So the rate stays a function of the consumed samples alone, and what the scheduler writes to a checkpoint is what it always
was.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from megatron_nca.errors import NCAError

WARMUP_FRACTION = 0.1
"""Of the NCA phases, as in the paper."""


@dataclass(frozen=True)
class PhaseLearningRate:
    """The NCA phases' own schedule.

    Attributes:
        peak: Peak learning rate, or None for the run's.
        minimum: Rate at the end of the decay, or None for the run's.
        warmup_samples: Samples of linear warm-up, or None for a tenth of the phases.
        decay_style: As Megatron's ``--lr-decay-style``, or None for the run's.
    """

    peak: float | None = None
    minimum: float | None = None
    warmup_samples: int | None = None
    decay_style: str | None = None


def install(scheduler: Any, switch: int, phase: PhaseLearningRate, text_warmup_fraction: float | None = None) -> None:
    """Give a scheduler two schedules, and set the rates of the coming step.

    Args:
        scheduler: Megatron's OptimizerParamScheduler; its steps are samples.
        switch: Consumed samples at which the text begins.
        phase: The NCA phases' schedule.
        text_warmup_fraction: Warm-up of the text as a share of its decay, or None for the scheduler's own warm-up.

    Raises:
        NCAError: What remains after the switch is too short for the run's warm-up or final decay.
    """
    before = _phase_schedule(scheduler, switch, phase)
    after = _text_schedule(scheduler, switch, text_warmup_fraction)
    ratio = before.max_lr / scheduler.max_lr if scheduler.max_lr else 1.0

    def schedule() -> Any:
        in_phase = scheduler.num_steps < switch
        chosen = before if in_phase else after
        chosen.num_steps = scheduler.num_steps - (0 if in_phase else switch)
        return chosen

    def get_lr(param_group: dict[str, Any]) -> float:
        chosen = schedule()
        group = _phase_group(param_group, before, ratio) if chosen is before else param_group
        return type(scheduler).get_lr(chosen, group)

    def get_wd(param_group: dict[str, Any] | None = None) -> float:
        chosen = schedule()
        if param_group is None:
            return type(scheduler).get_wd(chosen)
        if chosen is before and "start_wd" in param_group:
            param_group = {**param_group, "end_wd": param_group["start_wd"]}
        return type(scheduler).get_wd(chosen, param_group)

    scheduler.get_lr = get_lr
    scheduler.get_wd = get_wd
    scheduler.step(0)


def begin_text(scheduler: Any, switch: int) -> None:
    """Bring a scheduler to the switch that lags behind the consumed samples.

    Megatron does not step it where an update is skipped, as for a loss scale that overflows; the text's schedule begins with
    the text all the same.
    """
    if scheduler.num_steps < switch:
        scheduler.step(switch - scheduler.num_steps)


def _phase_schedule(scheduler: Any, switch: int, phase: PhaseLearningRate) -> Any:
    before = copy.copy(scheduler)
    before.max_lr = scheduler.max_lr if phase.peak is None else float(phase.peak)
    minimum = scheduler.min_lr if phase.minimum is None else float(phase.minimum)
    before.min_lr = min(minimum, before.max_lr)
    before.init_lr = min(scheduler.init_lr, before.max_lr)
    before.lr_decay_steps = switch
    warmup = int(WARMUP_FRACTION * switch) if phase.warmup_samples is None else phase.warmup_samples
    if warmup >= switch:
        raise NCAError(
            f"learning rate: a warm-up of {warmup:,} samples does not fit the NCA phases, which end after {switch:,}; "
            "give --nca-lr-warmup-samples less than that"
        )
    before.lr_warmup_steps = warmup
    before.lr_decay_style = phase.decay_style or scheduler.lr_decay_style
    if before.lr_decay_style == "WSD":
        share = scheduler.wsd_decay_steps / scheduler.lr_decay_steps
        before.wsd_decay_steps = max(int(share * switch), 1)
    # The weight decay grows, if it does, over the text; the phases keep what it starts from.
    before.end_wd = before.start_wd
    before.wd_incr_style = "constant"
    return before


def _text_schedule(scheduler: Any, switch: int, warmup_fraction: float | None) -> Any:
    after = copy.copy(scheduler)
    after.lr_decay_steps = scheduler.lr_decay_steps - switch
    after.wd_incr_steps = max(scheduler.wd_incr_steps - switch, 1)
    if warmup_fraction is not None:
        # Not rounded, as in Megatron-LM, so that a run of the text alone has the same schedule.
        after.lr_warmup_steps = warmup_fraction * max(after.lr_decay_steps, 0)
    needed = {"warm-up": after.lr_warmup_steps}
    if scheduler.lr_decay_style == "WSD":
        needed["final decay"] = scheduler.wsd_decay_steps
    for name, samples in needed.items():
        if samples >= after.lr_decay_steps:
            raise NCAError(
                f"learning rate: after the switch at {switch:,} samples {max(after.lr_decay_steps, 0):,} samples of decay "
                f"remain, too few for the {name} of {samples:,.10g}; lengthen the run or its decay by the NCA phases, shorten "
                f"the {name}, or keep one schedule with --nca-lr-at-switch continue"
            )
    return after


def _phase_group(param_group: dict[str, Any], before: Any, ratio: float) -> dict[str, Any]:
    """Scale a parameter group's own peak and minimum, which Megatron puts before the scheduler's."""
    scaled = dict(param_group)
    if scaled.get("max_lr") is not None:
        scaled["max_lr"] = scaled["max_lr"] * ratio
    if scaled.get("min_lr") is not None:
        scaled["min_lr"] = min(before.min_lr, scaled.get("max_lr", before.max_lr))
    return scaled
