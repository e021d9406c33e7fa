"""Activations in float32: GELU (tanh), QuickGELU, ReLU, squared ReLU, SiLU, each by itself and gating a second half.

For `gelu` there are `dgelu(grad, fwd_input, quantizer)` and, with the gradient of a bias before it, `dbias_dgelu`; for the
gated form `geglu` there is `dgeglu`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from megatron_nca.rehearsal.extension.norms import finish

Activation = Callable[[torch.Tensor], torch.Tensor]


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


def _squared_relu(x: torch.Tensor) -> torch.Tensor:
    return functional.relu(x).square()


PLAIN: dict[str, Activation] = {
    "gelu": _gelu,
    "qgelu": _quick_gelu,
    "relu": functional.relu,
    "srelu": _squared_relu,
    "silu": functional.silu,
}
GATED: dict[str, Activation] = {
    "geglu": _gelu,
    "qgeglu": _quick_gelu,
    "reglu": functional.relu,
    "sreglu": _squared_relu,
    "swiglu": functional.silu,
    "glu": torch.sigmoid,
}


def _gate(activation: Activation) -> Activation:
    def gated(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return activation(gate) * up

    return gated


def _forward(function: Activation) -> Callable[..., Any]:
    def forward(input: torch.Tensor, quantizer: Any) -> Any:
        return finish(function(input.detach().float()), None, quantizer, input.dtype)

    return forward


def _backward(function: Activation) -> Callable[..., Any]:
    def backward(grad: torch.Tensor, fwd_input: torch.Tensor, quantizer: Any) -> Any:
        return finish(_gradient(function, grad, fwd_input), None, quantizer, grad.dtype)

    return backward


def _backward_with_bias(function: Activation) -> Callable[..., Any]:
    def backward(grad: torch.Tensor, fwd_input: torch.Tensor, quantizer: Any) -> list[Any]:
        gradient = _gradient(function, grad, fwd_input)
        bias = gradient.reshape(-1, gradient.shape[-1]).sum(0).to(grad.dtype)
        return [bias, finish(gradient, None, quantizer, grad.dtype)]

    return backward


def _gradient(function: Activation, grad: torch.Tensor, fwd_input: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = fwd_input.detach().float().requires_grad_()
        return torch.autograd.grad(function(x), x, grad.float())[0]


_ALL: dict[str, Activation] = {**PLAIN, **{name: _gate(activation) for name, activation in GATED.items()}}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _forward(function) for name, function in _ALL.items()},
    **{f"d{name}": _backward(function) for name, function in _ALL.items()},
    **{f"dbias_d{name}": _backward_with_bias(function) for name, function in PLAIN.items()},
}
