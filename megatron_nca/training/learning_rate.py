"""The learning rate under ``restart``: the NCA phases have a schedule of their own, the text the run's, over what remains.

    before the switch   position n             peak phase.peak, warm-up over a tenth, decay over the phases
    from the switch on  position n - switch    the run's peak and warm-up, decay over decay_steps - switch

A position is a number of consumed samples for Megatron's OptimizerParamScheduler, and a number of steps for a scheduler that
counts those; ``SplitSchedule`` serves both. The rate is a function of the position alone: ``follow`` brings a scheduler to the
run's before every step, whatever was loaded, skipped or left out of a checkpoint. What a scheduler writes to a checkpoint is
what it always was.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

from megatron_nca.errors import NCAError
from megatron_nca.interfaces.core import MegatronOptimizer, OptimizerParamScheduler, ParamGroup
from megatron_nca.stacks import CORE, Stack

WARMUP_FRACTION = 0.1
"""Warm-up as a share of the NCA phases, as in the paper."""


@dataclass(frozen=True)
class PhaseLearningRate:
    """The NCA phases' own schedule.

    Attributes:
        peak: Peak learning rate, or None for the run's.
        minimum: Rate at the end of the decay, or None for the run's.
        warmup_samples: Samples of linear warm-up, or None for a tenth of the phases.
        decay_style: Shape of the decay, as Megatron's ``--lr-decay-style``, or None for the run's.
        decoupled_peak: Peak learning rate of input and output embeddings, where the run decouples theirs; None for one in
            proportion to the others'.
        decoupled_minimum: Their rate at the end of the decay, or None for one in proportion.
    """

    peak: float | None = None
    minimum: float | None = None
    warmup_samples: int | None = None
    decay_style: str | None = None
    decoupled_peak: float | None = None
    decoupled_minimum: float | None = None


S = TypeVar("S")


@dataclass(frozen=True)
class SplitSchedule(Generic[S]):
    """Two schedules, one behind the other.

    Attributes:
        switch: Position at which the second begins.
        before: Answers for the positions before it.
        after: Answers for the others, counted from it.
    """

    switch: int
    before: S
    after: S

    def moved(self, position: int, counter: str) -> S:
        """Return the schedule of a position, its counter set to the position within it."""
        in_phase = position < self.switch
        chosen = self.before if in_phase else self.after
        setattr(chosen, counter, position if in_phase else position - self.switch)
        return chosen


def install(
    scheduler: OptimizerParamScheduler,
    switch: int,
    phase: PhaseLearningRate,
    text_warmup_fraction: float | None = None,
    stack: Stack = CORE,
) -> None:
    """Give a scheduler two schedules, and set the rates of the coming step.

    Args:
        scheduler: Megatron's OptimizerParamScheduler; its steps are samples.
        switch: Consumed samples at which the text begins.
        phase: The NCA phases' schedule.
        text_warmup_fraction: Warm-up of the text as a share of its decay, or None for the scheduler's own warm-up.
        stack: The stack whose spelling errors use.

    Raises:
        NCAError: What remains after the switch is too short for the run's warm-up or final decay, or embeddings are to have
            a rate of their own in an optimizer that does not tell them apart.
    """
    check_decoupled(scheduler.optimizer, phase, stack)
    split = SplitSchedule(
        switch, _phase_schedule(scheduler, switch, phase, stack), _text_schedule(scheduler, switch, text_warmup_fraction, stack)
    )
    rates = _GroupRates.of(scheduler, phase)

    def get_lr(param_group: ParamGroup) -> float:
        chosen = split.moved(scheduler.num_steps, "num_steps")
        group = rates.in_phase(param_group) if chosen is split.before else param_group
        return float(type(scheduler).get_lr(chosen, group))

    def get_wd(param_group: ParamGroup | None = None) -> float:
        chosen = split.moved(scheduler.num_steps, "num_steps")
        if param_group is None:
            return float(type(scheduler).get_wd(chosen))
        if chosen is split.before and "start_wd" in param_group:
            param_group = {**param_group, "end_wd": param_group["start_wd"]}
        return float(type(scheduler).get_wd(chosen, param_group))

    scheduler.get_lr = get_lr
    scheduler.get_wd = get_wd
    scheduler.step(0)


def follow(scheduler: OptimizerParamScheduler, consumed_samples: int) -> None:
    """Bring a scheduler to the run's position, where it is elsewhere.

    Megatron does not step it where an update is skipped, as for a loss scale that overflows, nor over skipped iterations, and
    begins at 0 where its state was not loaded.
    """
    if scheduler.num_steps != consumed_samples:
        scheduler.num_steps = consumed_samples
        scheduler.step(0)


@dataclass(frozen=True)
class _GroupRates:
    """What the NCA phases make of a parameter group's own peak and minimum, which Megatron puts before the scheduler's.

    A group keeps its proportion to the run's ordinary groups, unless the phase gives the embeddings a rate of their own. A
    checkpoint's groups bring the rates of the launch that wrote it, so the proportion is taken among groups, and not to the
    scheduler.
    """

    phase: PhaseLearningRate
    run_peak: float
    run_minimum: float

    @classmethod
    def of(cls, scheduler: OptimizerParamScheduler, phase: PhaseLearningRate) -> _GroupRates:
        groups = getattr(scheduler.optimizer, "param_groups", [])
        ordinary: ParamGroup = next((group for group in groups if not is_decoupled(group)), {})
        return cls(phase, *(_group_value(ordinary, key, getattr(scheduler, key)) for key in ("max_lr", "min_lr")))

    def in_phase(self, group: ParamGroup) -> ParamGroup:
        own_peak, own_minimum = _group_value(group, "max_lr", self.run_peak), _group_value(group, "min_lr", self.run_minimum)
        peak, minimum = (
            _scaled(own_peak, self.run_peak, self.phase.peak),
            _scaled(own_minimum, self.run_minimum, self.phase.minimum),
        )
        if is_decoupled(group):
            peak = peak if self.phase.decoupled_peak is None else self.phase.decoupled_peak
            minimum = minimum if self.phase.decoupled_minimum is None else self.phase.decoupled_minimum
        return {**group, "max_lr": peak, "min_lr": min(minimum, peak)}


def check_decoupled(optimizer: MegatronOptimizer, phase: PhaseLearningRate, stack: Stack) -> None:
    """Refuse a rate of the embeddings' own where the optimizer keeps them in one group with the layers.

    Raises:
        NCAError: The run does not decouple their rate.
    """
    decouples = getattr(getattr(optimizer, "config", None), "decoupled_lr", None) is not None
    if not decouples and not any(map(is_decoupled, optimizer.param_groups)):
        refuse_decoupled(phase, stack)


def refuse_decoupled(phase: PhaseLearningRate, stack: Stack) -> None:
    """Refuse a rate of the embeddings' own in a run whose embeddings have the layers' rate."""
    given = {"decoupled_lr": phase.decoupled_peak, "decoupled_min_lr": phase.decoupled_minimum}
    name = next((name for name, value in given.items() if value is not None), None)
    if name:
        raise NCAError(
            f"{stack.option(name, given[name])}: the run gives its embeddings no learning rate of their own, so the NCA phases "
            f"cannot either; give {stack.word('decoupled')} too, the embeddings' rate on text"
        )


def is_decoupled(group: ParamGroup) -> bool:
    """Tell whether a group has rates of its own, as decoupled embeddings do; versions differ in how they mark it."""
    return not group.get("default_config", True) or bool(group.get("is_decoupled_lr", False))


def _group_value(group: ParamGroup, key: str, otherwise: float) -> float:
    value = group.get(key)
    return otherwise if value is None else value


def _scaled(rate: float, run: float, wanted: float | None) -> float:
    """Return a group's rate where the run's becomes ``wanted``; groups with the run's rate get it to the last bit."""
    if wanted is None:
        return rate
    return wanted if rate == run or not run else wanted * (rate / run)


def _phase_schedule(
    scheduler: OptimizerParamScheduler, switch: int, phase: PhaseLearningRate, stack: Stack
) -> OptimizerParamScheduler:
    before = copy.copy(scheduler)
    before.max_lr = scheduler.max_lr if phase.peak is None else float(phase.peak)
    minimum = scheduler.min_lr if phase.minimum is None else float(phase.minimum)
    before.min_lr = min(minimum, before.max_lr)
    before.init_lr = min(scheduler.init_lr, before.max_lr)
    before.lr_decay_steps = switch
    warmup = int(WARMUP_FRACTION * switch) if phase.warmup_samples is None else phase.warmup_samples
    check_phase_warmup(warmup, switch, "samples", stack.option("lr_warmup_samples"))
    before.lr_warmup_steps = warmup
    before.lr_decay_style = phase.decay_style or scheduler.lr_decay_style
    if before.lr_decay_style == "WSD":
        whole = scheduler.wsd_decay_steps or WARMUP_FRACTION * scheduler.lr_decay_steps
        before.wsd_decay_steps = max(int(whole / scheduler.lr_decay_steps * switch), 1)
        before.lr_wsd_decay_style = scheduler.lr_wsd_decay_style or "exponential"
    # The weight decay grows, if it does, over the text; the phases keep what it starts from.
    before.end_wd = before.start_wd
    before.wd_incr_style = "constant"
    return before


def _text_schedule(
    scheduler: OptimizerParamScheduler, switch: int, warmup_fraction: float | None, stack: Stack
) -> OptimizerParamScheduler:
    after = copy.copy(scheduler)
    after.lr_decay_steps = scheduler.lr_decay_steps - switch
    after.wd_incr_steps = max(scheduler.wd_incr_steps - switch, 1)
    if warmup_fraction is not None:
        # Not rounded, as in Megatron-LM, so that a run of the text alone has the same schedule.
        after.lr_warmup_steps = warmup_fraction * max(after.lr_decay_steps, 0)
    needed = {"warm-up": after.lr_warmup_steps}
    if scheduler.lr_decay_style == "WSD" and scheduler.wsd_decay_steps is not None:
        needed["final decay"] = scheduler.wsd_decay_steps
    for name, samples in needed.items():
        check_text_part(name, samples, after.lr_decay_steps, switch, "samples", stack)
    return after


def check_phase_warmup(warmup: int, switch: int, unit: str, option: str) -> None:
    """Refuse a warm-up that does not fit the NCA phases."""
    if warmup >= switch:
        raise NCAError(
            f"learning rate: a warm-up of {warmup:,} {unit} does not fit the NCA phases, which end after {switch:,}; "
            f"give {option} less than that"
        )


def check_text_part(name: str, length: float, remaining: int, switch: int, unit: str, stack: Stack) -> None:
    """Refuse a run whose text is too short for a part of its schedule."""
    if length >= remaining:
        raise NCAError(
            f"learning rate: after the switch at {switch:,} {unit} {max(remaining, 0):,} {unit} of decay remain, too few for "
            f"the {name} of {length:,.10g}; lengthen the run or its decay ({stack.word('decay')}) by the NCA phases, shorten "
            f"the {name} ({stack.word('warmup')}), or keep one schedule with {stack.option('lr_at_switch', 'continue')}"
        )
