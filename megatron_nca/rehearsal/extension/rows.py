"""Rows padded so that every group of a grouped product has a multiple of what FP8 kernels want, and unpadded."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def fused_multi_row_padding(
    input: torch.Tensor, output: torch.Tensor, input_row_list: Sequence[int], padded_input_row_list: Sequence[int]
) -> None:
    """Copy groups of rows, each followed by rows of zeros up to its padded number."""
    output.zero_()
    read = written = 0
    for rows, padded in zip(input_row_list, padded_input_row_list, strict=True):
        output[written : written + rows] = input[read : read + rows]
        read, written = read + rows, written + padded


def fused_multi_row_unpadding(
    input: torch.Tensor, output: torch.Tensor, input_row_list: Sequence[int], unpadded_input_row_list: Sequence[int]
) -> None:
    """Copy groups of rows without the rows that pad them."""
    read = written = 0
    for padded, rows in zip(input_row_list, unpadded_input_row_list, strict=True):
        output[written : written + rows] = input[read : read + rows]
        read, written = read + padded, written + rows


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "fused_multi_row_padding": fused_multi_row_padding,
    "fused_multi_row_unpadding": fused_multi_row_unpadding,
}
