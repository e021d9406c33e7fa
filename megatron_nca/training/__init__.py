"""What happens to the model, the optimizer and the learning rate when a run passes from NCA to text."""

from typing import TYPE_CHECKING, Any

from megatron_nca.training.settings import TransitionSettings

if TYPE_CHECKING:
    from megatron_nca.training.transition import Transition

__all__ = ["Transition", "TransitionSettings"]


def __getattr__(name: str) -> Any:
    # The transition needs torch, its settings and flags do not: a plan is checked where there is no torch.
    if name == "Transition":
        from megatron_nca.training.transition import Transition

        return Transition
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
