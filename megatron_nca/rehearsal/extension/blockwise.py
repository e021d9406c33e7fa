"""Tensors with one scale a block: 128 x 128 for weights, 1 x 128 along the summed dimension for everything else.

`Float8BlockwiseQTensor` holds its data twice: row-wise, with blocks along the last dimension, and column-wise, transposed, with
blocks along the first. Scales lie as products want them: transposed and padded to four.
"""

from typing import Any

import torch

from megatron_nca.rehearsal.extension import formats
from megatron_nca.rehearsal.extension.construction import construct, fill
from megatron_nca.rehearsal.extension.tensorwise import transposed

QUANTIZERS = ("Float8BlockQuantizer",)
BLOCK = 128


def classes() -> tuple[type, type]:
    """Transformer Engine's public class, and the bare one for use inside its modules."""
    from transformer_engine.pytorch.tensor.float8_blockwise_tensor import Float8BlockwiseQTensor
    from transformer_engine.pytorch.tensor.storage.float8_blockwise_tensor_storage import Float8BlockwiseQTensorStorage

    return Float8BlockwiseQTensor, Float8BlockwiseQTensorStorage


def empty(quantizer: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """Make a tensor without values; scales that pad are 0."""
    row, column = quantizer.rowwise_usage, quantizer.columnwise_usage
    return construct(
        *classes(),
        quantizer,
        shape,
        dtype,
        rowwise_data=torch.empty(shape, dtype=torch.uint8) if row else None,
        rowwise_scale_inv=torch.zeros(quantizer.get_scale_shape(shape, columnwise=False)) if row else None,
        columnwise_data=torch.empty(tuple(quantizer.get_columnwise_shape(shape)), dtype=torch.uint8) if column else None,
        columnwise_scale_inv=torch.zeros(quantizer.get_scale_shape(shape, columnwise=True)) if column else None,
        fp8_dtype=quantizer.dtype,
        is_2D_scaled=quantizer.block_scaling_dim == 2,
        data_format=_format(_is_compact(quantizer)),
    )


def quantize(tensor: torch.Tensor, quantizer: Any, output: Any) -> torch.Tensor:
    """Cast into `output`, and return the row-wise scale of every element."""
    matrix = tensor.detach().reshape(-1, tensor.shape[-1])
    square, compact = quantizer.block_scaling_dim == 2, _is_compact(quantizer)
    largest_input = torch.finfo(tensor.dtype).max
    data, scales = _cast(matrix.float(), quantizer, BLOCK if square else 1, BLOCK, largest_input)
    fill(output, "_rowwise_data", data.reshape(tensor.shape) if quantizer.rowwise_usage else None)
    if quantizer.rowwise_usage:
        _fill_scales(output._rowwise_scale_inv, scales if square or compact else scales.t())
    if quantizer.columnwise_usage:
        columns, column_scales = (data, scales) if square else _cast(matrix.float(), quantizer, BLOCK, 1, largest_input)
        columns = columns.reshape(tensor.shape)
        fill(output, "_columnwise_data", columns if compact and not square else transposed(columns))
        _fill_scales(output._columnwise_scale_inv, column_scales.t() if square else column_scales)
    else:
        output._columnwise_data = output._columnwise_scale_inv = None
    output._fp8_dtype = quantizer.dtype
    return _spread(scales, matrix.shape, BLOCK if square else 1, BLOCK).reshape(tensor.shape)


def _cast(
    matrix: torch.Tensor, quantizer: Any, rows: int, columns: int, largest_input: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast a matrix with a scale for every block of so many rows and columns."""
    magnitudes = block_amax(matrix, rows, columns)
    limit = formats.largest(quantizer.dtype)
    scales = formats.scale_from_amax(
        magnitudes, limit, quantizer.amax_epsilon, quantizer.force_pow_2_scales, for_infinity=largest_input
    )
    return formats.cast(matrix * _spread(scales, matrix.shape, rows, columns), quantizer.dtype), scales


def block_amax(matrix: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the largest magnitude in every block of a matrix; blocks at the edges may be smaller."""
    down, across = -matrix.shape[0] % rows, -matrix.shape[1] % columns
    padded = torch.nn.functional.pad(matrix.abs(), (0, across, 0, down))
    return padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns).amax((1, 3))


def _spread(scales: torch.Tensor, shape: torch.Size, rows: int, columns: int) -> torch.Tensor:
    whole = scales.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return whole[: shape[0], : shape[1]]


def _fill_scales(held: torch.Tensor, scales: torch.Tensor) -> None:
    held[: scales.shape[0], : scales.shape[1]] = scales.reciprocal()


def _is_compact(quantizer: Any) -> bool:
    """Return whether scales are laid out to be gathered from other ranks; up to 2.14."""
    return bool(getattr(quantizer, "all_gather_usage", False)) and quantizer.block_scaling_dim == 1


def _format(compact: bool) -> Any:
    import transformer_engine_torch

    formats_ = transformer_engine_torch.Float8BlockScaleTensorFormat
    return formats_.COMPACT if compact else formats_.GEMM_READY


def dequantize(tensor: Any) -> torch.Tensor:
    """Return what the tensor stands for: float32. Transformer Engine's Python does it for this kind."""
    values: torch.Tensor = tensor.dequantize(dtype=torch.float32)
    return values


def operand(tensor: Any, rowwise: bool) -> torch.Tensor:
    """Return the matrix that a product reads, float32; see `tensorwise.operand`."""
    data: torch.Tensor | None = tensor._rowwise_data if rowwise else tensor._columnwise_data
    scales: torch.Tensor = tensor._rowwise_scale_inv if rowwise else tensor._columnwise_scale_inv
    if data is None:
        raise RuntimeError(f"an FP8 product wants {'row' if rowwise else 'column'}-wise data, and this tensor has none")
    if getattr(tensor, "_data_format", _format(False)) != _format(False):
        raise RuntimeError("an FP8 product wants scales as it reads them, and this tensor's are laid out to be gathered")
    # Either way the last dimension of what is stored is the summed one.
    matrix = data.reshape(-1, data.shape[-1]) if rowwise else data.reshape(data.shape[0], -1)
    if tensor._is_2D_scaled:
        spread = scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    else:
        spread = scales.t().repeat_interleave(BLOCK, 1)
    product = formats.values(matrix, tensor._fp8_dtype) * spread[: matrix.shape[0], : matrix.shape[1]]
    return product if rowwise else product.t()


def shape(tensor: Any) -> tuple[int, ...]:
    """Return the shape of what the tensor stands for."""
    return tuple(tensor.size())
