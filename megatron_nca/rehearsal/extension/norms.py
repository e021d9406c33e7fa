r"""LayerNorm and RMSNorm, forwards and backwards, in float32.

$y = (x - \mu) \rho \gamma + \beta$ with $\rho = 1 / \sqrt{\sigma^2 + \epsilon}$; RMSNorm leaves out $\mu$ and $\beta$.
A gamma that is centred at zero stands for $\gamma - 1$.
"""

from collections.abc import Callable
from typing import Any

import torch

from megatron_nca.rehearsal.extension import formats, quantizing


def layernorm_fwd(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    ln_out: Any,
    quantizer: Any,
    otype: int,
    sm_margin: int,
    zero_centered_gamma: bool,
) -> list[Any]:
    """Return the output, cast if there is a quantizer, and mean and reciprocal deviation of every row, float32."""
    x = _rows(input)
    mean = x.mean(1)
    reciprocal = ((x - mean[:, None]).square().mean(1) + eps).rsqrt()
    y = (x - mean[:, None]) * reciprocal[:, None] * _gamma(weight, zero_centered_gamma)
    if bias is not None:
        y = y + bias.detach().float()
    return [finish(y.reshape(input.shape), ln_out, quantizer, formats.to_torch(otype)), mean, reciprocal]


def layernorm_bwd(
    dz: torch.Tensor,
    x: torch.Tensor,
    mu: torch.Tensor,
    rsigma: torch.Tensor,
    gamma: torch.Tensor,
    sm_margin: int,
    zero_centered_gamma: bool,
) -> list[torch.Tensor]:
    """Return the gradients of input, gamma and beta."""
    gradient = _rows(dz)
    normed = (_rows(x) - mu[:, None]) * rsigma[:, None]
    dy = gradient * _gamma(gamma, zero_centered_gamma)
    dx = (dy - dy.mean(1, keepdim=True) - normed * (dy * normed).mean(1, keepdim=True)) * rsigma[:, None]
    return [dx.to(x.dtype).reshape(x.shape), (gradient * normed).sum(0).to(gamma.dtype), gradient.sum(0).to(gamma.dtype)]


def rmsnorm_fwd(
    input: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    ln_out: Any,
    quantizer: Any,
    otype: int,
    sm_margin: int,
    zero_centered_gamma: bool,
) -> list[Any]:
    """Return the output, cast if there is a quantizer, None, and the reciprocal root mean square of every row, float32."""
    x = _rows(input)
    reciprocal = (x.square().mean(1) + eps).rsqrt()
    y = x * reciprocal[:, None] * _gamma(weight, zero_centered_gamma)
    return [finish(y.reshape(input.shape), ln_out, quantizer, formats.to_torch(otype)), None, reciprocal]


def rmsnorm_bwd(
    dz: torch.Tensor, x: torch.Tensor, rsigma: torch.Tensor, gamma: torch.Tensor, sm_margin: int, zero_centered_gamma: bool
) -> list[torch.Tensor]:
    """Return the gradients of input and gamma."""
    gradient = _rows(dz)
    normed = _rows(x) * rsigma[:, None]
    dy = gradient * _gamma(gamma, zero_centered_gamma)
    dx = (dy - normed * (dy * normed).mean(1, keepdim=True)) * rsigma[:, None]
    return [dx.to(x.dtype).reshape(x.shape), (gradient * normed).sum(0).to(gamma.dtype)]


def rmsnorm_bwd_add(
    dz: torch.Tensor,
    x: torch.Tensor,
    add: torch.Tensor,
    rsigma: torch.Tensor,
    gamma: torch.Tensor,
    sm_margin: int,
    zero_centered_gamma: bool,
) -> list[torch.Tensor]:
    """Return the gradients of input, with another one added to it, and gamma."""
    dx, dgamma = rmsnorm_bwd(dz, x, rsigma, gamma, sm_margin, zero_centered_gamma)
    return [(dx.float() + add.float()).to(dx.dtype), dgamma]


def finish(values: torch.Tensor, output: Any, quantizer: Any, dtype: torch.dtype) -> Any:
    """Give a kernel's float32 result its type, cast it if there is a quantizer, and write it where it shall go."""
    values = values.to(dtype)
    if quantizer is not None:
        return quantizing.quantize(values, quantizer, output)
    return values if output is None else output.copy_(values)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().reshape(-1, tensor.shape[-1])


def _gamma(weight: torch.Tensor, zero_centered: bool) -> torch.Tensor:
    return weight.detach().float() + (1.0 if zero_centered else 0.0)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (layernorm_fwd, layernorm_bwd, rmsnorm_fwd, rmsnorm_bwd, rmsnorm_bwd_add)
}
