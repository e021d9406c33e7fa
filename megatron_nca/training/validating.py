"""What is refused of a launch before a model is built; without torch, so that a launch can be checked where there is none."""

from __future__ import annotations

from megatron_nca.data.curriculum import mentions_nca, read_blend
from megatron_nca.data.held_out import refuse_endless
from megatron_nca.errors import CurriculumError
from megatron_nca.stacks import Stack
from megatron_nca.training import checks
from megatron_nca.training.options import Options
from megatron_nca.training.requirements import refuse_unsupported
from megatron_nca.training.run_info import RunInfo

OF_CHECKPOINTS = ("override_curriculum",)
"""Options that mean something without a word of ours: the checkpoint may have had one."""


def validate(options: Options, info: RunInfo, stack: Stack) -> None:
    """Refuse what can be known from a launch's words.

    Args:
        options: The user's.
        info: What the stack tells of the run.
        stack: The stack whose spelling errors use.

    Raises:
        NCAError: Data, options and run do not go together.
    """
    has_switch = True
    if info.blends is not None:
        if not any(mentions_nca(blend) for blend in info.blends):
            _refuse_idle(options, stack)
            return
        apart = info.validation_sets_apart
        curricula = [read_blend(blend, mixed=not apart) if mentions_nca(blend) else None for blend in info.blends]
        has_switch = any(curriculum.has_switch for curriculum in curricula if curriculum)
        if getattr(info.args, "full_validation", False) and curricula[1]:
            refuse_endless(curricula[1].final(), "valid", stack.word("eval_batches"))
    checks.check_loader(info, stack)
    checks.check_validation(options, info, stack)
    if info.args is not None:
        refuse_unsupported(info.args, options, has_switch)


def _refuse_idle(options: Options, stack: Stack) -> None:
    checks.check_change(options, stack)
    idle = [name for name in options.given if name not in OF_CHECKPOINTS]
    if idle:
        raise CurriculumError(f"{stack.option(idle[0])} is given, but no data path has an nca: entry; add one, or leave it out")
