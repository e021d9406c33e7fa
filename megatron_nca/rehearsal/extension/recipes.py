"""Delayed scaling's update of histories and scales, and casts of shards of master weights for block scaling and MXFP8.

A history has a row a step: row 0 for the step that runs, the oldest in row 1, the newest last. After a step the scale becomes
$m / a / 2^{margin}$ with $a$ the largest magnitude in the history (`max`) or of the step (`most_recent`); it keeps its value
where $a$ is 0, infinite or NaN. Then the oldest row goes, the others move up, and row 0 is empty again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from megatron_nca.rehearsal.extension import blockwise, formats, microscaling
from megatron_nca.rehearsal.extension.names import DType


def fused_amax_and_scale_update_after_reduction(
    amax_reduction_buffer: torch.Tensor,
    amax_histories: Sequence[torch.Tensor],
    scales: Sequence[torch.Tensor],
    amax_compute_algo: str,
    fp8_dtype: int,
    margin: float,
) -> None:
    """Update histories and scales in place; kernel_bulk of common/recipe/delayed_scaling.cu.

    Args:
        amax_reduction_buffer: The step's largest magnitudes over all ranks, of all scales in turn.
        amax_histories: float32 (length, scales) each.
        scales: float32 (scales,) each.
        amax_compute_algo: `max` or `most_recent`.
        fp8_dtype: The format.
        margin: Powers of two by which values stay below the largest number.
    """
    limit = formats.largest(fp8_dtype) * 2.0**-margin
    offset = 0
    for history, scale in zip(amax_histories, scales, strict=True):
        reduced = amax_reduction_buffer[offset : offset + scale.numel()]
        offset += scale.numel()
        last = torch.where(reduced != 0, reduced, history[0])
        ran = last != 0
        rolled = torch.cat([history[1:], last[None]])
        amax = last if amax_compute_algo == "most_recent" else torch.where(ran, rolled.amax(0), torch.zeros_like(last))
        rolled[0] = 0
        history.copy_(torch.where(ran, rolled, history))
        updated = torch.where(torch.isfinite(amax) & (amax > 0), limit / amax, scale)
        scale.copy_(torch.where(torch.isinf(updated), torch.full_like(updated, torch.finfo(torch.float32).max), updated))


def fp8_block_scaling_compute_partial_amax(
    tensor: torch.Tensor, amax: torch.Tensor, h: int, w: int, start_offset: int, block_len: int
) -> None:
    """Write the largest magnitude of every 128 x 128 block, as far as a shard of the flat weight reaches.

    Args:
        tensor: The shard, flat.
        amax: Tensor to write to, one number a block.
        h: Rows of the whole weight.
        w: Columns of the weight.
        start_offset: Element of the flat weight at which the shard begins.
        block_len: 128.
    """
    found = blockwise.block_amax(_placed(tensor, h, w, start_offset), block_len, block_len)
    amax[: found.shape[0], : found.shape[1]] = found


def fp8_block_scaling_partial_cast(
    inp: torch.Tensor,
    out: torch.Tensor,
    scale: torch.Tensor,
    h: int,
    w: int,
    start_offset: int,
    block_len: int,
    out_dtype: int,
) -> None:
    """Cast a shard of a weight with the scales of the whole weight's blocks."""
    spread = scale.repeat_interleave(block_len, 0).repeat_interleave(block_len, 1)[:h, :w].reshape(-1)
    held = slice(start_offset, start_offset + inp.numel())
    out.view(-1)[: inp.numel()] = formats.cast(inp.float() * spread[held], out_dtype)


def mxfp8_scaling_compute_partial_amax(
    input: torch.Tensor, amax_rowwise: torch.Tensor, amax_colwise: torch.Tensor, rows: int, cols: int, start_offset: int
) -> None:
    """Write the largest magnitude of every group of 32 along rows and along columns, as far as a shard reaches."""
    matrix = _placed(input, rows, cols, start_offset)
    for amax, down, across in ((amax_rowwise, 1, microscaling.GROUP), (amax_colwise, microscaling.GROUP, 1)):
        found = blockwise.block_amax(matrix, down, across)
        amax[: found.shape[0], : found.shape[1]] = found


def mxfp8_scaling_partial_cast(
    input: torch.Tensor,
    output_rowwise: torch.Tensor,
    output_colwise: torch.Tensor,
    scale_inv_rowwise: torch.Tensor,
    scale_inv_colwise: torch.Tensor,
    rows: int,
    cols: int,
    start_offset: int,
) -> None:
    """Cast a shard of a weight with the whole weight's scales along rows and along columns."""
    held = slice(start_offset, start_offset + input.numel())
    group = microscaling.GROUP
    for output, exponents, down, across in (
        (output_rowwise, scale_inv_rowwise, 1, group),
        (output_colwise, scale_inv_colwise, group, 1),
    ):
        scales = formats.e8m0_reciprocal(exponents[: rows // down, : cols // across])
        spread = scales.repeat_interleave(down, 0).repeat_interleave(across, 1).reshape(-1)
        output.view(-1)[: input.numel()] = formats.cast(input.float() * spread[held], DType.kFloat8E4M3)


def _placed(shard: torch.Tensor, rows: int, columns: int, start: int) -> torch.Tensor:
    """Return the whole weight, float32, with zeros where the shard does not reach."""
    whole = torch.zeros(rows * columns)
    whole[start : start + shard.numel()] = shard.float().reshape(-1)
    return whole.reshape(rows, columns)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        fused_amax_and_scale_update_after_reduction,
        fp8_block_scaling_compute_partial_amax,
        fp8_block_scaling_partial_cast,
        mxfp8_scaling_compute_partial_amax,
        mxfp8_scaling_partial_cast,
    )
}
