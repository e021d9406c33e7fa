"""Tensors with one scale: delayed and current scaling. `Float8Tensor` holds data, its transpose and 1 / scale."""

from typing import Any

import torch

from megatron_nca.rehearsal.extension import formats, machine
from megatron_nca.rehearsal.extension.construction import construct, fill

QUANTIZERS = ("Float8Quantizer", "Float8CurrentScalingQuantizer")


def classes() -> tuple[type, type]:
    """Transformer Engine's public class, and the bare one for use inside its modules."""
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Tensor
    from transformer_engine.pytorch.tensor.storage.float8_tensor_storage import Float8TensorStorage

    return Float8Tensor, Float8TensorStorage


def empty(quantizer: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """Make a tensor without values."""
    column = quantizer.columnwise_usage and not machine.multiplies_any_layout()
    return construct(
        *classes(),
        quantizer,
        shape,
        dtype,
        data=torch.empty(shape, dtype=torch.uint8) if quantizer.rowwise_usage or not column else None,
        data_transpose=torch.empty(shape[-1], *shape[:-1], dtype=torch.uint8) if column else None,
        fp8_scale_inv=torch.empty(1),
        fp8_dtype=quantizer.dtype,
    )


def quantize(tensor: torch.Tensor, quantizer: Any, output: Any) -> torch.Tensor:
    """Cast into `output` and return the scale; delayed scaling notes the largest magnitude it has met."""
    values = tensor.detach().float().contiguous()
    scale = _current_scale(values, quantizer) if _is_current(quantizer) else quantizer.scale.detach()
    if not _is_current(quantizer) and quantizer.amax.numel():
        # Atomic in the kernel: several casts before an update are seen together.
        quantizer.amax.copy_(torch.maximum(quantizer.amax, formats.amax(values).reshape(quantizer.amax.shape)))
    data = formats.cast(values * scale.reshape(()), quantizer.dtype)
    column = quantizer.columnwise_usage and not machine.multiplies_any_layout()
    fill(output, "_data", data if quantizer.rowwise_usage or not column else None)
    fill(output, "_transpose", transposed(data) if column else None)
    output._transpose_invalid = not column
    output._fp8_dtype = quantizer.dtype
    output._scale_inv.copy_(scale.reciprocal().reshape(output._scale_inv.shape))
    return scale


def _is_current(quantizer: Any) -> bool:
    return type(quantizer).__name__ == "Float8CurrentScalingQuantizer"


def _current_scale(values: torch.Tensor, quantizer: Any) -> torch.Tensor:
    amax = quantizer.amax.clone() if getattr(quantizer, "use_existing_amax", False) else formats.amax(values)
    if quantizer.with_amax_reduction:
        torch.distributed.all_reduce(amax, torch.distributed.ReduceOp.MAX, quantizer.amax_reduction_group)
    limit = formats.largest(quantizer.dtype)
    scale = formats.scale_from_amax(amax, limit, quantizer.amax_epsilon, quantizer.force_pow_2_scales)
    if hasattr(quantizer, "scale"):
        # Up to 2.14 the quantizer lends the kernel its buffers.
        quantizer.amax.copy_(amax.reshape(quantizer.amax.shape))
        quantizer.scale.copy_(scale.reshape(quantizer.scale.shape))
    return scale


def dequantize(tensor: Any) -> torch.Tensor:
    """Return what the tensor stands for: float32."""
    inverse: torch.Tensor = tensor._scale_inv
    if tensor._data is not None:
        return formats.values(tensor._data, tensor._fp8_dtype) * inverse
    return _untransposed(formats.values(tensor._transpose, tensor._fp8_dtype)) * inverse


def operand(tensor: Any, rowwise: bool) -> torch.Tensor:
    """Return the matrix that a product reads, float32: Hopper's kernels read only operands whose last dimension is summed over.

    Args:
        tensor: A `Float8Tensor`.
        rowwise: Whether the last dimension is the one that is summed over; if not, the transpose is read.
    """
    inverse: torch.Tensor = tensor._scale_inv
    if rowwise or (machine.multiplies_any_layout() and tensor._data is not None):
        if tensor._data is None:
            raise RuntimeError("an FP8 product wants row-wise data, and this tensor has none")
        return formats.values(tensor._data.reshape(-1, tensor._data.shape[-1]), tensor._fp8_dtype) * inverse
    if tensor._transpose is None or tensor._transpose_invalid:
        raise RuntimeError("an FP8 product wants the transpose, and this tensor has none")
    flat = tensor._transpose.reshape(tensor._transpose.shape[0], -1)
    return (formats.values(flat, tensor._fp8_dtype) * inverse).t()


def shape(tensor: Any) -> tuple[int, ...]:
    """Return the shape of what the tensor stands for."""
    if tensor._data is not None:
        return tuple(tensor._data.shape)
    return (*tensor._transpose.shape[1:], tensor._transpose.shape[0])


def transposed(data: torch.Tensor) -> torch.Tensor:
    """Move the last dimension to the front."""
    return data.reshape(-1, data.shape[-1]).t().contiguous().reshape(data.shape[-1], *data.shape[:-1])


def _untransposed(data: torch.Tensor) -> torch.Tensor:
    return data.reshape(data.shape[0], -1).t().contiguous().reshape(*data.shape[1:], data.shape[0])
