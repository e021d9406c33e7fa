"""Optimizers, norms and scales over lists of tensors, in float32.

Each takes the size of a chunk, which only matters on a GPU, a flag, and lists of equal lengths, such as gradients, parameters
and moments. Parameters and moments may be of fewer bits; they are rounded when they are stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from megatron_nca.rehearsal.extension import formats
from megatron_nca.rehearsal.extension.names import DType

Lists = Sequence[Sequence[torch.Tensor]]

_LOW_BITS = 0xFFFF


@dataclass(frozen=True)
class Adam:
    """Adam's numbers, in the order in which kernels take them.

    Args:
        lr: Learning rate, a number or a tensor.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the root of the second moment.
        step: Counted from 1, a number or a tensor.
        mode: 0: weight decay is part of the gradient; 1: it is apart, as in AdamW.
        bias_correction: Whether moments are corrected for their beginning at 0.
        weight_decay: Weight decay.
    """

    lr: Any
    beta1: float
    beta2: float
    eps: float
    step: Any
    mode: int
    bias_correction: int
    weight_decay: float

    def update(self, gradient: torch.Tensor, weight: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Update the moments in place and return the new weight, float32."""
        gradient, first, second = gradient.float(), m.float(), v.float()
        if self.mode == 0:
            gradient = gradient + self.weight_decay * weight
        first = self.beta1 * first + (1 - self.beta1) * gradient
        second = self.beta2 * second + (1 - self.beta2) * gradient * gradient
        m.copy_(first)
        v.copy_(second)
        step, lr = float(self.step), float(self.lr)
        corrections = (1 - self.beta1**step, 1 - self.beta2**step) if self.bias_correction else (1.0, 1.0)
        update = (first / corrections[0]) / ((second / corrections[1]).sqrt() + self.eps)
        if self.mode != 0:
            update = update + self.weight_decay * weight
        return weight - lr * update


def multi_tensor_adam(chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, *numbers: Any) -> None:
    """Step; lists: gradients, parameters, moments, and masters where there are."""
    adam = Adam(*numbers)
    for gradient, parameter, m, v, *master in zip(*tensor_lists, strict=True):
        updated = adam.update(gradient, (master[0] if master else parameter).float(), m, v)
        if master:
            master[0].copy_(updated)
        parameter.copy_(updated)


def multi_tensor_adam_fp8(chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, *numbers: Any) -> None:
    """Step and cast; lists: gradients, FP8 parameters, moments, masters, scales, amaxes, reciprocal scales."""
    *numbers_, dtype = numbers
    adam = Adam(*numbers_)
    for gradient, parameter, m, v, master, scale, amax, scale_inv in zip(*tensor_lists, strict=True):
        updated = adam.update(gradient, master.float(), m, v)
        master.copy_(updated)
        amax.copy_(torch.maximum(amax, formats.amax(updated).reshape(amax.shape)))
        parameter.copy_(formats.cast(updated * scale.reshape(()), dtype))
        scale_inv.copy_(scale.reciprocal().reshape(scale_inv.shape))


def multi_tensor_adam_param_remainder(chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, *numbers: Any) -> None:
    """Step; lists: gradients, bf16 parameters, moments, int16 remainders.

    A master is a bf16 parameter, which is its upper half rounded to nearest, and its lower half.
    """
    adam = Adam(*numbers)
    for gradient, parameter, m, v, remainder in zip(*tensor_lists, strict=True):
        low = remainder.int()
        high = parameter.view(torch.int16).int()
        high = torch.where(low < 0, high - 1, high)
        master = ((high << 16) | (low & _LOW_BITS)).view(torch.float32)
        bits = adam.update(gradient, master, m, v).view(torch.int32)
        low, high = (bits & _LOW_BITS).to(torch.int16), bits >> 16
        high = torch.where(low < 0, high + 1, high)
        parameter.view(torch.int16).copy_(high.to(torch.int16))
        remainder.copy_(low)


def multi_tensor_adam_capturable(
    chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, *numbers_and_inverse: Any
) -> None:
    """Step as a CUDA graph can: rate, step and the gradients' inverse scale are tensors, and a set flag means no step.

    Gradients are unscaled in place, as the kernel does. Lists: gradients, parameters, moments, and masters where there are.
    """
    *numbers, inverse_scale = numbers_and_inverse
    if float(noop_flag) == 1.0:
        return
    for gradient in tensor_lists[0]:
        gradient.copy_(gradient.float() * float(inverse_scale))
    multi_tensor_adam(chunk_size, noop_flag, tensor_lists, *numbers)


def multi_tensor_sgd(
    chunk_size: int,
    noop_flag: torch.Tensor,
    tensor_lists: Lists,
    weight_decay: float,
    momentum: float,
    dampening: float,
    lr: float,
    nesterov: bool,
    first_run: bool,
    weight_decay_after_momentum: bool,
    scale: float,
) -> None:
    """Step; lists: gradients, parameters, momenta, and copies of parameters in another type where there are."""
    if float(noop_flag) == 1.0:
        return
    for gradient, parameter, held, *model in zip(*tensor_lists, strict=True):
        weight, g = parameter.float(), gradient.float() * scale
        if weight_decay != 0 and not weight_decay_after_momentum:
            g = g + weight_decay * weight
        if momentum != 0:
            moved = g if first_run else momentum * held.float() + (1.0 - dampening) * g
            g = g + momentum * moved if nesterov else moved
            held.copy_(moved)
        if weight_decay != 0 and weight_decay_after_momentum:
            g = g + weight_decay * weight
        parameter.copy_(weight - lr * g)
        for copy in model:
            copy.copy_(parameter)


def multi_tensor_scale(chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, scale: Any) -> None:
    """Write sources times a scale into targets; a value that is not finite sets the flag."""
    for source, target in zip(*tensor_lists, strict=True):
        if not torch.isfinite(source).all():
            noop_flag.fill_(1)
        target.copy_(source.float() * scale)


def multi_tensor_scale_tensor(chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, scale: torch.Tensor) -> None:
    """`multi_tensor_scale` with the scale in a tensor; since 2.17."""
    multi_tensor_scale(chunk_size, noop_flag, tensor_lists, scale.reshape(()))


def multi_tensor_l2norm(
    chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, per_tensor: bool | None = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the norm over all tensors, (1,), and where asked for that of each."""
    norms = [tensor.float().norm() for tensor in tensor_lists[0]]
    each = torch.stack(norms) if norms else torch.zeros(0)
    return each.norm().reshape(1), each if per_tensor else torch.zeros(0)


def multi_tensor_unscale_l2norm(
    chunk_size: int, noop_flag: torch.Tensor, tensor_lists: Lists, inv_scale: Any, per_tensor: bool | None = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """`multi_tensor_l2norm` of tensors times a scale, which stay as they are."""
    total, each = multi_tensor_l2norm(chunk_size, noop_flag, tensor_lists, per_tensor)
    return total * inv_scale, each * inv_scale


def multi_tensor_compute_scale_and_scale_inv(
    chunk_size: int,
    noop_flag: torch.Tensor,
    tensor_lists: Lists,
    max_fp8: float,
    force_pow_2_scales: bool,
    epsilon: float,
) -> None:
    """Write scales and their reciprocals; lists: amaxes, scales, reciprocals."""
    for amax, scale, scale_inv in zip(*tensor_lists, strict=True):
        scale.copy_(formats.scale_from_amax(amax, max_fp8, epsilon, force_pow_2_scales))
        scale_inv.copy_(scale.reciprocal())


def multi_tensor_compute_scale_inv_e8m0(chunk_size: int, noop_flag: Any, tensor_lists: Lists) -> None:
    """Write MXFP8's exponents; lists: amaxes, exponents."""
    for amax, exponents in zip(*tensor_lists, strict=True):
        exponents.copy_(formats.e8m0_from_amax(amax.float(), formats.LARGEST[DType.kFloat8E4M3]))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        function.__name__: function
        for function in (
            multi_tensor_adam,
            multi_tensor_adam_fp8,
            multi_tensor_adam_param_remainder,
            multi_tensor_adam_capturable,
            multi_tensor_sgd,
            multi_tensor_scale,
            multi_tensor_scale_tensor,
            multi_tensor_l2norm,
            multi_tensor_unscale_l2norm,
            multi_tensor_compute_scale_and_scale_inv,
            multi_tensor_compute_scale_inv_e8m0,
        )
    },
    "multi_tensor_adam_capturable_master": multi_tensor_adam_capturable,
}
