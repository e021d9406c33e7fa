"""Kernels of state-space, linear-attention and sparse-attention layers, in plain PyTorch.

A Mamba-2 layer, for each head, with state h of (head dimension, state dimension):

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        y_t = h_t C_t + D x_t        out_t = y_t silu(z_t)

token by token (https://arxiv.org/abs/2405.21060, section 2). Of the gated delta rule Megatron-Core has a form of its own in
PyTorch, for `--deterministic-mode`; what it takes from `fla` is the norm.
"""

import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

import torch
from torch.nn import functional

from megatron_nca.rehearsal.stand_in.replacing import replace

PACKAGES = ("mamba_ssm", "causal_conv1d", "fla", "fast_hadamard_transform")


def install() -> None:
    """Offer the kernels under their packages' names, unless a package is there."""
    modules: dict[str, dict[str, Any]] = {
        "mamba_ssm.ops.triton.layernorm_gated": {"RMSNorm": GatedRMSNorm},
        "mamba_ssm.ops.triton.ssd_combined": {
            "mamba_split_conv1d_scan_combined": split_conv1d_scan,
            "mamba_chunk_scan_combined": _gpu_only,
        },
        "causal_conv1d.causal_conv1d_varlen": {"causal_conv1d_varlen_states": _gpu_only},
        "fast_hadamard_transform": {"hadamard_transform": hadamard_transform},
        "fla.modules.convolution": {"causal_conv1d": _gpu_only},
        "fla.modules.l2norm": {"l2norm": l2_norm},
        "fla.ops.gated_delta_rule": {"chunk_gated_delta_rule": _gpu_only},
    }
    missing = {name for name in PACKAGES if importlib.util.find_spec(name) is None}
    for name, contents in modules.items():
        if name.split(".")[0] in missing:
            replace(_module(name), **contents)
    if "causal_conv1d" in missing:
        replace(_module("causal_conv1d"), causal_conv1d_fn=_gpu_only, causal_conv1d_update=_gpu_only)


def _module(name: str) -> types.ModuleType:
    """Return the module of that name, made with those above it where there is none."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        if path not in sys.modules:
            module = types.ModuleType(path)
            module.__spec__ = importlib.machinery.ModuleSpec(path, loader=None, is_package=True)
            module.__path__ = []
            sys.modules[path] = module
    return sys.modules[name]


def _gpu_only(*args: Any, **kwargs: Any) -> Any:
    """Stand for a kernel that Megatron's training does not reach with the flags that this package chooses."""
    raise RuntimeError("this state-space kernel needs a GPU; on the stand-in give --deterministic-mode for linear attention")


class GatedRMSNorm(torch.nn.Module):
    """Root-mean-square norm over groups of channels.

    Args:
        hidden_size: Channels.
        eps: Added to the mean square.
        group_size: Channels of a group; None for all of them.
        norm_before_gate: Megatron's layers gate before, elsewhere.
        device: Device of the weight.
        dtype: Type of the weight.
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.group_size = group_size or hidden_size
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norm the last dimension."""
        groups = torch.unflatten(x.float(), -1, (-1, self.group_size))
        normed = groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + self.eps)
        return (normed.flatten(-2) * self.weight.float()).to(x.dtype)


def l2_norm(x: torch.Tensor, dim: int = -1, eps: float = 1e-6, **kwargs: Any) -> torch.Tensor:
    """Return the vectors along a dimension, brought to length 1."""
    return (x.float() * torch.rsqrt(x.float().square().sum(dim, keepdim=True) + eps)).to(x.dtype)


def hadamard_transform(x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Return the last dimension, of a size that is a power of two, times Sylvester's matrix of that size and a scale."""
    matrix = torch.ones(1, 1)
    while len(matrix) < x.shape[-1]:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return (x.float() @ matrix * scale).to(x.dtype)


def split_conv1d_scan(
    zxbcdt: torch.Tensor,
    conv1d_weight: torch.Tensor,
    conv1d_bias: torch.Tensor,
    dt_bias: torch.Tensor,
    A: torch.Tensor,  # noqa: N803 (the kernel's name)
    D: torch.Tensor,  # noqa: N803 (the kernel's name)
    chunk_size: int,
    activation: str = "silu",
    headdim: int | None = None,
    ngroups: int = 1,
    **kwargs: Any,
) -> torch.Tensor:
    """Return a layer from its input projection to the gated output.

    Args:
        zxbcdt: (batch, length, channels): gate, input, B, C and step sizes side by side.
        conv1d_weight: (channels of x, B and C, taps).
        conv1d_bias: (channels of x, B and C).
        dt_bias: (heads), added to the step sizes before the softplus.
        A: (heads), negative.
        D: (heads) or (heads, head dimension), weight of the input in the output.
        chunk_size: The kernel's; the result does not depend on it.
        activation: Activation after the convolution; Megatron's is "silu".
        headdim: Head dimension; None where D tells.
        ngroups: Groups of heads with one B and C each.
        **kwargs: What only the kernel looks at.

    Returns:
        (batch, length, heads x head dimension).
    """
    heads = len(dt_bias)
    width = heads * (D.shape[1] if headdim is None else headdim)
    states = (conv1d_weight.shape[0] - width) // 2
    gate, mixed, steps = torch.split(zxbcdt, [width, width + 2 * states, heads], dim=-1)
    mixed = functional.silu(_convolve(mixed, conv1d_weight, conv1d_bias))
    x, b, c = torch.split(mixed.float(), [width, states, states], dim=-1)
    b, c = (torch.unflatten(part, -1, (ngroups, -1)).repeat_interleave(heads // ngroups, dim=2) for part in (b, c))
    steps = functional.softplus(steps.float() + dt_bias.float())
    x = torch.unflatten(x, -1, (heads, -1))
    y = _scan(x, steps, A.float(), b, c)
    weight = D.float() if D.ndim == 2 else D.float()[:, None]
    y = (y + weight * x).flatten(-2)
    return (y * functional.silu(gate.float())).to(zxbcdt.dtype)


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Each channel with its own kernel over the tokens up to each: (batch, length, channels)."""
    taps = weight.shape[1]
    padded = functional.pad(x.transpose(1, 2), (taps - 1, 0))
    return functional.conv1d(padded, weight[:, None], bias, groups=len(weight)).transpose(1, 2)


def _scan(x: torch.Tensor, steps: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """(batch, length, heads, head dimension) of x, (batch, length, heads) steps, (.., heads, states) b and c -> like x."""
    decays = torch.exp(steps * a)
    inputs = (steps[..., None] * x)[..., None] * b[..., None, :]
    state = torch.zeros_like(inputs[:, 0])
    outputs: list[torch.Tensor] = []
    for place in range(x.shape[1]):
        state = decays[:, place, :, None, None] * state + inputs[:, place]
        outputs.append((state * c[:, place, :, None, :]).sum(-1))
    return torch.stack(outputs, dim=1)
