"""Phases with a global batch of their own, through Megatron-Core's microbatch calculator.

Every stack asks the calculator how many micro-batches a step has and what its samples are. In a phase with ``batch=`` one
in its place answers for the phase, and everywhere else for the run: constant, growing or stepwise as it is.

Megatron-LM's and Bridge's loops ask twice before a step: first without a check of consistency, to save a checkpoint where the
number of micro-batches has grown and to end in an assertion where it has fallen; then with the check, for the step. A phase's
batch may be smaller than the one before it, so the first question is answered with one number throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import Plan, mentions_nca, plan_training, read_blend
from megatron_nca.errors import CurriculumError
from megatron_nca.interfaces.core import MicrobatchCalculator
from megatron_nca.stacks import Stack
from megatron_nca.training.run_info import RunInfo

NUMBERS = ("num_micro_batches", "current_global_batch_size", "current_running_global_batch_size")


def plan_phase_batches(info: RunInfo, boundaries: BatchBoundaries) -> Plan | None:
    """Lay a launch's curriculum out before its datasets are built, where its phases have batches of their own.

    Args:
        info: Give data, sequence length and the length of the run.
        boundaries: The run's own batches.

    Returns:
        The plan, or None where every phase has the run's batch.
    """
    blend = info.blends[0] if info.blends else None
    if not mentions_nca(blend) or info.sequence_length is None:
        return None
    curriculum = read_blend(blend)
    if not any(stage.batch for stage in curriculum.stages):
        return None
    return plan_training(
        curriculum, info.sequence_length, info.train_samples or 1, boundaries, iterations=info.train_iterations
    )


def count_steps(info: RunInfo, boundaries: BatchBoundaries, counted: int) -> int:
    """Return the steps of a launch whose length is given in samples.

    Megatron-LM counts one more than there are samples for where its batches still grow when the run ends. A text of its own has
    more samples than were asked for; a curriculum has as many.

    Args:
        info: Give data, sequence length and the samples of the run.
        boundaries: The run's own batches.
        counted: What Megatron-LM makes of it.

    Returns:
        The whole batches among the samples; what Megatron-LM counted, where the data have no word of ours.
    """
    plan = plan_phase_batches(info, boundaries)
    samples = info.train_samples or 0
    if plan is not None:
        return plan.batches.batches_until(samples)
    if boundaries.are_known and info.blends and mentions_nca(info.blends[0]):
        return min(counted, boundaries.batches_until(samples))
    return counted


def end_iterations(plan: Plan, info: RunInfo) -> str:
    """Say after which iterations the phases that have not ended will end, as the batches of this start go."""
    ahead = [phase.end for phase in plan.phases if phase.end > info.consumed_samples]
    # A loop of one's own tells samples and no steps.
    if not ahead or not plan.batches.are_known or plan.batches.begin > info.consumed_samples:
        return ""
    ends = (f"{info.iteration + plan.batches.batches_until(end):,}" for end in ahead)
    return "; phases end after iterations " + ", ".join(ends)


def check(plan: Plan, stack: Stack) -> None:
    """Refuse a batch that the data-parallel ranks cannot share.

    Raises:
        CurriculumError: It is no multiple of micro-batch times data-parallel size; the message names the nearest that fit.
    """
    calculator = _installed()
    if calculator is None:
        return
    unit = int(calculator.get_current_running_global_batch_size()) // int(calculator.get())
    for stage in plan.curriculum.stages:
        if stage.batch is not None and stage.batch % unit:
            below = stage.batch // unit * unit
            near = f"{below:,} or {below + unit:,}" if below else f"{unit:,}"
            raise CurriculumError(
                f"data path: batch={stage.batch} of {stage.text!r} is no multiple of {unit:,}, which is micro-batch times "
                f"data-parallel size of this launch; the nearest that fit are {near} ({stack.word('batch')} stays the run's)"
            )


def check_count(plan: Plan, info: RunInfo, stack: Stack) -> None:
    """Refuse a changed data path beside batches of phases' own where the stack counts its steps without knowing of both.

    Raises:
        CurriculumError: Megatron-LM and Bridge count steps, and validations by them, before they read the checkpoint.
    """
    # A loop of one's own, as NeMo's, counts no samples into steps.
    if plan.earlier is None or info.counts_from_start or info.global_batch_size is None:
        return
    stage = next((stage for one in _chain(plan) for stage in one.curriculum.stages if stage.batch), None)
    if stage is not None:
        raise CurriculumError(
            f"data path: batch={stage.batch} of {stage.text!r}: {stack.name} counts the run's steps before it reads the "
            "checkpoint, so a run whose data path changes would end at another sample than planned; leave batch= out of a run "
            f"with {stack.option('amend_curriculum', True)}, or begin a new run with its weights ({stack.word('new_start')})"
        )


def _chain(plan: Plan) -> Iterator[Plan]:
    """Yield a plan and those that held before it."""
    found: Plan | None = plan
    while found is not None:
        yield found
        found = found.earlier


def install(batches: BatchBoundaries, consumed_samples: int) -> None:
    """Let a plan's batches answer in the place of the run's, from a step on.

    Args:
        batches: The plan's global batches.
        consumed_samples: Samples of all steps so far.
    """
    from megatron.core import num_microbatches_calculator as module

    calculator = _installed()
    if calculator is None:
        return
    if getattr(calculator, "phase_batches", None) is not batches:
        run_calculator = getattr(calculator, "run_calculator", calculator)
        module._GLOBAL_NUM_MICROBATCHES_CALCULATOR = phase_calculator(run_calculator, batches)
    module.update_num_microbatches(consumed_samples, True)


def _installed() -> MicrobatchCalculator | None:
    from megatron.core import num_microbatches_calculator as module

    calculator: MicrobatchCalculator | None = module._GLOBAL_NUM_MICROBATCHES_CALCULATOR
    return calculator


def phase_calculator(run_calculator: MicrobatchCalculator, batches: BatchBoundaries) -> MicrobatchCalculator:
    """Return a calculator of the same kind as the run's that knows the phases' own batches.

    Args:
        run_calculator: One of Megatron-Core's; keeps answering for positions outside of those phases.
        batches: Say where they lie.
    """
    kind: Any = type(run_calculator)

    class PhaseCalculator(kind):  # type: ignore[misc]
        """See the module."""

        def update(self, consumed_samples: int, consistency_check: bool, verbose: bool = False) -> None:
            if not consistency_check:
                self._show(self.at_start)
                return
            size = batches.phase_size_at(int(consumed_samples))
            self.run_calculator.update(int(consumed_samples), size is None, verbose)
            shown = {name: getattr(self.run_calculator, name) for name in NUMBERS}
            if size is not None:
                unit = self.at_start["current_running_global_batch_size"] // self.at_start["num_micro_batches"]
                shown = dict(zip(NUMBERS, (size // unit, size, size), strict=True))
            self._show(shown)

        def _show(self, numbers: dict[str, int]) -> None:
            for name, value in numbers.items():
                setattr(self, name, value)

    calculator: Any = copy.copy(run_calculator)
    calculator.__class__ = PhaseCalculator
    calculator.run_calculator = run_calculator
    calculator.phase_batches = batches
    calculator.at_start = {name: getattr(run_calculator, name) for name in NUMBERS}
    answering: MicrobatchCalculator = calculator
    return answering
