"""Casts to and from FP8, of any kind of tensor, and who may watch them."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

from megatron_nca.rehearsal.extension import blockwise, formats, microscaling, tensorwise
from megatron_nca.rehearsal.extension.names import DType

KINDS: tuple[ModuleType, ...] = (tensorwise, blockwise, microscaling)

Watcher = Callable[[Any, torch.Tensor, torch.Tensor], None]
"""Takes the quantizer, the values (float32) and the scale of each, of a shape that broadcasts with them."""

WATCHERS: list[Watcher] = []
"""Called at every cast."""


def kind_of(tensor: Any) -> ModuleType | None:
    """Return the kind that a tensor is of, or None for a plain one."""
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return None
    return next((kind for kind in KINDS if isinstance(tensor, kind.classes())), None)


def _kind_for(quantizer: Any) -> ModuleType:
    name = type(quantizer).__name__
    kind = next((kind for kind in KINDS if name in kind.QUANTIZERS), None)
    if kind is None:
        raise NotImplementedError(f"casts by {name} are not emulated on the CPU; choose another FP8 recipe")
    return kind


def quantize(tensor: torch.Tensor, quantizer: Any, output: Any = None, noop: torch.Tensor | None = None) -> Any:
    """Cast a tensor to FP8.

    Args:
        tensor: A tensor of any floating type.
        quantizer: Transformer Engine's, of which the kind and the scale come.
        output: Tensor to write to, or None for a new tensor.
        noop: If it holds 1, `output` stays as it is.

    Returns:
        The quantized tensor.
    """
    kind = _kind_for(quantizer)
    if output is None:
        output = kind.empty(quantizer, tuple(tensor.shape), tensor.dtype)
    elif noop is not None and float(noop) == 1.0:
        return output
    plain = tensor if kind_of(tensor) is None else dequantize(tensor, DType.kFloat32)
    scale = kind.quantize(plain, quantizer, output)
    for watch in WATCHERS:
        watch(quantizer, plain.detach().float(), scale)
    return output


def dequantize(input: Any, otype: int) -> torch.Tensor:
    """Return what a quantized tensor stands for, in a plain type."""
    kind = kind_of(input)
    if kind is None:
        raise NotImplementedError(f"a {type(input).__name__} cannot be read on the CPU")
    values: torch.Tensor = kind.dequantize(input)
    return values.to(formats.to_torch(otype))


def bgrad_quantize(input: torch.Tensor, quantizer: Any) -> list[Any]:
    """Return the gradient of a bias, which is the sum over all but the last dimension, and the tensor cast."""
    return [input.reshape(-1, input.shape[-1]).float().sum(0).to(input.dtype), quantize(input, quantizer)]


def multi_tensor_quantize(tensor_list: Sequence[torch.Tensor], quantizer_list: Sequence[Any]) -> list[Any]:
    """Cast each tensor with its own quantizer."""
    return [quantize(tensor, quantizer) for tensor, quantizer in zip(tensor_list, quantizer_list, strict=True)]


def split_quantize(
    tensor: torch.Tensor, split_sections: Sequence[int], quantizer_list: Sequence[Any], *rest: Any, **keywords: Any
) -> list[Any]:
    """Split along the first dimension and cast each part with its own quantizer."""
    return multi_tensor_quantize(torch.split(tensor, list(split_sections)), quantizer_list)


def create_empty_quantized_tensor(
    quantizer: Any, shape: Sequence[int], dtype: torch.dtype, device: Any = None, pin_memory: bool = False
) -> Any:
    """Make a quantized tensor without values."""
    return _kind_for(quantizer).empty(quantizer, tuple(shape), dtype)


def fp8_transpose(input: torch.Tensor, dtype: int, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Move the last dimension of uint8 data to the front."""
    moved = tensorwise.transposed(input)
    return moved if out is None else out.copy_(moved.reshape(out.shape))


def swap_first_dims(tensor: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Swap the first two dimensions."""
    swapped = tensor.transpose(0, 1).contiguous()
    return swapped if out is None else out.copy_(swapped.reshape(out.shape))


def compute_amax(input: torch.Tensor, amax: torch.Tensor) -> None:
    """Write the largest magnitude."""
    amax.copy_(formats.amax(input).reshape(amax.shape))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        quantize,
        dequantize,
        bgrad_quantize,
        multi_tensor_quantize,
        split_quantize,
        create_empty_quantized_tensor,
        fp8_transpose,
        swap_first_dims,
        compute_amax,
    )
}
