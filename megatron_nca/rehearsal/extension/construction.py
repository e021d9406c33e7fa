"""Quantized tensors made: Transformer Engine's classes take other arguments in other versions."""

import inspect
from functools import cache
from typing import Any

import torch


def construct(public: type, storage: type, quantizer: Any, shape: tuple[int, ...], dtype: torch.dtype, **held: Any) -> Any:
    """Make a quantized tensor of what it holds.

    Args:
        public: Transformer Engine's class that presents itself as a tensor.
        storage: Its bare counterpart, which quantizers marked as internal make.
        quantizer: The quantizer.
        shape: Shape of the tensor that the FP8 data stand for.
        dtype: Type that the tensor presents itself with.
        **held: The constructor's arguments; those that this version does not know are left out.
    """
    held = {name: value for name, value in held.items() if name in _known(storage)}
    if not quantizer.internal:
        return public(shape=shape, dtype=dtype, quantizer=quantizer, **held)
    if "fake_dtype" in _known(storage):
        held["fake_dtype"] = dtype
    return storage(quantizer=quantizer, **held)


@cache
def _known(storage: Any) -> frozenset[str]:
    return frozenset(inspect.signature(storage.__new__).parameters)


def fill(output: Any, name: str, values: torch.Tensor | None) -> None:
    """Write into the buffer that is there, so that what shares its memory sees it; or put one there."""
    held = getattr(output, name)
    if values is None or held is None:
        setattr(output, name, values)
    else:
        held.copy_(values.reshape(held.shape))
