"""What happens to the model, the optimizer and the learning rate when a run passes from NCA to text."""

from megatron_nca.training.transition import Transition, TransitionSettings

__all__ = ["Transition", "TransitionSettings"]
