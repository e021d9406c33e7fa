"""What a launch is refused for before anything is built, in the words of its stack."""

from __future__ import annotations

from megatron_nca.data.curriculum import Plan
from megatron_nca.errors import CurriculumError, NCAError
from megatron_nca.stacks import Stack
from megatron_nca.training.options import Options
from megatron_nca.training.run_info import RunInfo

IN_ORDER = (None, "single")
"""Kinds of data loader, as Megatron names them, that read samples in order."""


def check_loader(info: RunInfo, stack: Stack) -> None:
    """Refuse a data loader that shuffles, or orders samples as it likes.

    Raises:
        CurriculumError: No token count could be kept.
    """
    if info.loader not in IN_ORDER:
        raise CurriculumError(
            f"nca: entries need {stack.word('loader')}, which reads samples in order; with {info.loader!r} no token count can "
            "be kept"
        )


def check_validation(options: Options, info: RunInfo, stack: Stack) -> None:
    """Refuse a validation on NCA beside no validation at all.

    Raises:
        NCAError: There is none.
    """
    if options.valid is not None and info.eval_batches == 0:
        raise NCAError(
            f"{stack.option('valid')} runs beside the validation of text, and {stack.word('eval_batches')} is 0; raise it, or "
            f"leave {stack.option('valid')} out"
        )


def check_length(plan: Plan, info: RunInfo, stack: Stack) -> None:
    """Refuse a run whose remaining steps read more samples than are planned, as after a resume with smaller batches.

    Raises:
        CurriculumError: The data would end before the run does.
    """
    # With batches of phases' own the plan is made of the steps themselves.
    if info.train_iterations is None or not info.global_batch_size or plan.batches.phase_batches:
        return
    remaining = max(info.train_iterations - info.iteration, 0) * info.global_batch_size
    end = info.consumed_samples + remaining
    if info.iteration and end > plan.samples:
        raise CurriculumError(
            f"{stack.word('batch')} {info.global_batch_size:,} does not fit the steps so far: {info.iteration:,} steps have "
            f"read {info.consumed_samples:,} samples, and the {info.train_iterations - info.iteration:,} that remain would "
            f"read {remaining:,} more, but the run is planned for {plan.samples:,}; give {stack.word('samples')} {end:,} in "
            "place of a number of steps, or the batch size of the steps so far"
        )


def check_change(options: Options, stack: Stack) -> None:
    """Refuse a changed data path without a word of ours, which Megatron would read from its first sample.

    Args:
        options: The user's, of a launch whose training data have no such word.
        stack: Whose spelling the error uses.

    Raises:
        CurriculumError: A change is asked for.
    """
    if options.amend_curriculum:
        raise CurriculumError(
            f"{stack.option('amend_curriculum', True)} is given, and {stack.word('data_path')} has no phase: or nca: word, "
            "so Megatron would read its training data from the first sample; write phase: before it, as in phase: 0.7 A 0.3 B"
        )
