"""The run: its options, its record, and what happens to model, optimizer and learning rate when it passes from NCA to text."""

from typing import TYPE_CHECKING, Any

from megatron_nca.training.settings import TransitionSettings

if TYPE_CHECKING:
    from megatron_nca.training.run import CurriculumRun
    from megatron_nca.training.transition import Transition

__all__ = ["CurriculumRun", "Transition", "TransitionSettings"]


def __getattr__(name: str) -> Any:
    # The run and its transition need torch, its options do not: a plan is checked where there is no torch.
    if name == "Transition":
        from megatron_nca.training.transition import Transition

        return Transition
    if name == "CurriculumRun":
        from megatron_nca.training.run import CurriculumRun

        return CurriculumRun
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
