"""The fused optimizers of Apex, unfused.

Megatron-Core uses Apex's or Transformer Engine's Adam where there is one and PyTorch's otherwise. With PyTorch's, its
distributed optimizer cannot be loaded from a checkpoint, so a run that uses it would not resume. The fused Adam differs
where it counts for whoever touches an optimizer's state: the step is a number of the parameter group, not a tensor of each
parameter.
"""

import importlib.util
import sys
import types
from collections.abc import Iterable
from typing import Any

import torch

from megatron_nca.rehearsal.stand_in.replacing import replace


class FusedAdam(torch.optim.Optimizer):
    """Adam with `apex.optimizers.FusedAdam`'s arguments and state.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        betas: Decay of the first and of the second moment.
        eps: Added to the root of the second moment.
        adam_w_mode: Whether weight decay is apart from the gradient, as in AdamW.
        weight_decay: Weight decay.
        capturable: Whether a CUDA graph may capture the step; there is none here.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        adam_w_mode: bool = True,
        weight_decay: float = 0.0,
        capturable: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.adam_w_mode = adam_w_mode

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for parameter in group["params"]:
                # Transformer Engine's makes the state of every parameter, and ranks of FSDP with an empty part rely on it.
                self._moments(parameter)
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        first, second = self._moments(parameter)
        if decay and self.adam_w_mode:
            parameter.mul_(1 - group["lr"] * decay)
        elif decay:
            gradient = gradient.add(parameter, alpha=decay)
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (second / (1 - beta2 ** group["step"])).sqrt_().add_(group["eps"])
        parameter.addcdiv_(first, root, value=-group["lr"] / (1 - beta1 ** group["step"]))

    def _moments(self, parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.state[parameter]
        if not state:
            state.update(exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))
        return state["exp_avg"], state["exp_avg_sq"]


def install() -> None:
    """Offer the optimizers as `apex.optimizers`, unless Apex or Transformer Engine is there."""
    if importlib.util.find_spec("apex") or importlib.util.find_spec("transformer_engine"):
        return
    # Not under `apex` itself, which Megatron takes for a sign that Apex's layer norm is there too.
    optimizers = types.ModuleType("apex.optimizers")
    replace(optimizers, FusedAdam=FusedAdam, FusedSGD=torch.optim.SGD)
    sys.modules[optimizers.__name__] = optimizers
