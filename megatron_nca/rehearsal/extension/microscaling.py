"""MXFP8: one power of two as the scale of every 32 values along the summed dimension; Blackwell's.

`MXFP8Tensor` holds its data twice, untransposed: row-wise with groups along the last dimension, column-wise along the first.
Scales are biased exponents (E8M0), padded to 128 x 4.
"""

from typing import Any

import torch

from megatron_nca.rehearsal.extension import formats
from megatron_nca.rehearsal.extension.blockwise import block_amax
from megatron_nca.rehearsal.extension.construction import construct, fill

QUANTIZERS = ("MXFP8Quantizer",)
GROUP = 32
_ROWS, _COLUMNS = 128, 4


def classes() -> tuple[type, type]:
    """Transformer Engine's public class, and the bare one for use inside its modules."""
    from transformer_engine.pytorch.tensor.mxfp8_tensor import MXFP8Tensor
    from transformer_engine.pytorch.tensor.storage.mxfp8_tensor_storage import MXFP8TensorStorage

    return MXFP8Tensor, MXFP8TensorStorage


def empty(quantizer: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """Make a tensor without values; scales that pad are 0."""
    row, column = quantizer.rowwise_usage, quantizer.columnwise_usage
    last, rows = shape[-1], torch.Size(shape[:-1]).numel()
    if last % GROUP or rows % GROUP:
        raise ValueError(f"MXFP8 wants both dimensions to be multiples of {GROUP}; this tensor is {tuple(shape)}")
    return construct(
        *classes(),
        quantizer,
        shape,
        dtype,
        rowwise_data=torch.empty(shape, dtype=torch.uint8) if row else None,
        rowwise_scale_inv=_scales(_up(rows, _ROWS), _up(last // GROUP, _COLUMNS)) if row else None,
        columnwise_data=torch.empty(shape, dtype=torch.uint8) if column else None,
        columnwise_scale_inv=_scales(_up(rows // GROUP, _COLUMNS), _up(last, _ROWS)) if column else None,
        fp8_dtype=quantizer.dtype,
        with_gemm_swizzled_scales=False,
    )


def _scales(rows: int, columns: int) -> torch.Tensor:
    return torch.zeros(rows, columns, dtype=torch.uint8)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def quantize(tensor: torch.Tensor, quantizer: Any, output: Any) -> torch.Tensor:
    """Cast into `output`, and return the row-wise scale of every element."""
    matrix = tensor.detach().reshape(-1, tensor.shape[-1]).float()
    used = ((quantizer.rowwise_usage, "_rowwise", 1, GROUP), (quantizer.columnwise_usage, "_columnwise", GROUP, 1))
    for wanted, name, rows, columns in used:
        if not wanted:
            setattr(output, f"{name}_data", None)
            setattr(output, f"{name}_scale_inv", None)
            continue
        exponents = formats.e8m0_from_amax(block_amax(matrix, rows, columns), formats.largest(quantizer.dtype))
        data = formats.cast(matrix * _spread(formats.e8m0_reciprocal(exponents), rows, columns), quantizer.dtype)
        fill(output, f"{name}_data", data.reshape(tensor.shape))
        getattr(output, f"{name}_scale_inv")[: exponents.shape[0], : exponents.shape[1]] = exponents
    output._fp8_dtype = quantizer.dtype
    exponents = formats.e8m0_from_amax(block_amax(matrix, 1, GROUP), formats.largest(quantizer.dtype))
    return _spread(formats.e8m0_reciprocal(exponents), 1, GROUP).reshape(tensor.shape)


def _spread(scales: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return scales.repeat_interleave(rows, 0).repeat_interleave(columns, 1)


def dequantize(tensor: Any) -> torch.Tensor:
    """Return what the tensor stands for: float32."""
    rowwise = tensor._rowwise_data is not None
    return operand(tensor, rowwise).reshape(shape(tensor))


def operand(tensor: Any, rowwise: bool) -> torch.Tensor:
    """Return the matrix that a product reads, float32; see `tensorwise.operand`."""
    data = tensor._rowwise_data if rowwise else tensor._columnwise_data
    exponents = tensor._rowwise_scale_inv if rowwise else tensor._columnwise_scale_inv
    if data is None:
        raise RuntimeError(f"an MXFP8 product wants {'row' if rowwise else 'column'}-wise data, and this tensor has none")
    matrix = data.reshape(-1, data.shape[-1])
    rows, columns = (1, GROUP) if rowwise else (GROUP, 1)
    held = exponents[: matrix.shape[0] // rows, : matrix.shape[1] // columns]
    return formats.values(matrix, tensor._fp8_dtype) * _spread(formats.e8m0_value(held), rows, columns)


def shape(tensor: Any) -> tuple[int, ...]:
    """Return the shape of what the tensor stands for."""
    data = tensor._rowwise_data if tensor._rowwise_data is not None else tensor._columnwise_data
    return tuple(data.shape)
