"""FP8 numbers: E4M3 (largest 448) and E5M2 (57,344), casts to them, and the scales that bring values into their range.

With $a$ the largest magnitude of what shares a scale and $m$ the format's largest number, the scale is $s = m / a$, and a value
$x$ becomes the FP8 number nearest to $s x$, ties to even, magnitudes beyond $m$ becoming $m$. A product multiplies by $1 / s$.
"""

import torch

from megatron_nca.rehearsal.extension.names import DType

TORCH = {
    DType.kByte: torch.uint8,
    DType.kInt32: torch.int32,
    DType.kFloat32: torch.float32,
    DType.kFloat16: torch.float16,
    DType.kBFloat16: torch.bfloat16,
    DType.kFloat8E4M3: torch.float8_e4m3fn,
    DType.kFloat8E5M2: torch.float8_e5m2,
}
LARGEST = {DType.kFloat8E4M3: 448.0, DType.kFloat8E5M2: 57344.0}

_EXPONENT_BITS = -0x800000
"""0xFF800000: sign and exponent of a float32."""

_LARGEST_E8M0 = 0xFE


def to_torch(dtype: int) -> torch.dtype:
    """PyTorch's type for one of Transformer Engine's."""
    return TORCH[DType(int(dtype))]


def largest(dtype: int) -> float:
    """Return the largest finite number of an FP8 format."""
    return LARGEST[DType(int(dtype))]


def cast(scaled: torch.Tensor, dtype: int) -> torch.Tensor:
    """Round float32 values to an FP8 format, saturating; NaN stays NaN. The result is uint8, of the same shape."""
    limit = largest(dtype)
    return scaled.clamp(-limit, limit).to(to_torch(dtype)).view(torch.uint8)


def values(data: torch.Tensor, dtype: int) -> torch.Tensor:
    """Return what uint8 data of an FP8 format stands for, before the scale: float32."""
    return data.view(to_torch(dtype)).float()


def amax(tensor: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude: a float32 scalar, 0 for an empty tensor."""
    return tensor.detach().abs().amax().float() if tensor.numel() else torch.zeros(())


def scale_from_amax(
    largest_magnitude: torch.Tensor,
    dtype_or_largest: float,
    epsilon: float = 0.0,
    power_of_two: bool = False,
    for_infinity: float = torch.finfo(torch.float32).max,
) -> torch.Tensor:
    """Return the scales for largest magnitudes; compute_scale_from_amax of common/recipe/recipe_common.cuh.

    Args:
        largest_magnitude: float32, of any shape.
        dtype_or_largest: The format's largest number.
        epsilon: Smaller magnitudes count as this.
        power_of_two: Whether scales are rounded down to powers of two.
        for_infinity: The scale where the quotient overflows.

    Returns:
        float32; 1 where the magnitude is 0, infinite or NaN.
    """
    magnitude = torch.where(largest_magnitude < epsilon, torch.full_like(largest_magnitude, epsilon), largest_magnitude)
    scale = torch.full_like(magnitude, dtype_or_largest) / magnitude
    scale = torch.where(torch.isinf(scale), torch.full_like(scale, for_infinity), scale)
    if power_of_two:
        scale = (scale.view(torch.int32) & _EXPONENT_BITS).view(torch.float32)
    return torch.where(torch.isfinite(magnitude) & (magnitude != 0), scale, torch.ones_like(scale))


def e8m0_from_amax(largest_magnitude: torch.Tensor, largest_number: float) -> torch.Tensor:
    """Biased exponents of the smallest powers of two that are not below amax / largest; float_to_e8m0 of common/util/ptx.cuh.

    Returns:
        uint8, of the magnitudes' shape; 255 for NaN.
    """
    quotient = largest_magnitude * torch.tensor(1.0 / largest_number, dtype=torch.float32)
    bits = quotient.view(torch.int32)
    exponent, mantissa = bits >> 23, bits & 0x7FFFFF
    raised = (mantissa > 0) & (exponent != _LARGEST_E8M0) & ~((exponent == 0) & (mantissa <= 0x400000))
    exponent = (exponent + raised.int()).clamp(max=_LARGEST_E8M0)
    return torch.where(torch.isnan(quotient), torch.full_like(exponent, 0xFF), exponent).to(torch.uint8)


def e8m0_value(exponent: torch.Tensor) -> torch.Tensor:
    """Return the powers of two that biased exponents stand for, float32."""
    return (exponent.int() << 23).view(torch.float32)


def e8m0_reciprocal(exponent: torch.Tensor) -> torch.Tensor:
    """Return what values are multiplied with before they are cast, float32; 1 for the exponent of zeros."""
    reciprocal = ((254 - exponent.int()) << 23).view(torch.float32)
    return torch.where(exponent == 0, torch.ones_like(reciprocal), reciprocal)
