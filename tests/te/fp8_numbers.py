"""FP8 in float64, from the formats' definition: every number there is, and the nearest one to a value."""

import numpy as np

FORMATS = {"kFloat8E4M3": (4, 3, 7, 448.0), "kFloat8E5M2": (5, 2, 15, 57344.0)}
"""Bits of the exponent, bits of the mantissa, bias, largest number."""


def numbers(name):
    """(value, whether its mantissa is even) of every finite number that is not negative, ascending."""
    _, mantissa_bits, bias, largest = FORMATS[name]
    found = []
    for code in range(128):
        exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
        fraction = mantissa / (1 << mantissa_bits)
        value = fraction * 2.0 ** (1 - bias) if exponent == 0 else (1 + fraction) * 2.0 ** (exponent - bias)
        if value <= largest:
            found.append((value, mantissa % 2 == 0))
    return found


def nearest(values, name):
    """Round float64 values: to the nearest number, ties to an even mantissa, magnitudes beyond the largest to it."""
    table = numbers(name)
    grid = np.array([value for value, _ in table])
    even = np.array([is_even for _, is_even in table])
    magnitudes = np.minimum(np.abs(values), grid[-1])
    above = np.clip(np.searchsorted(grid, magnitudes), 1, len(grid) - 1)
    below = above - 1
    down, up = magnitudes - grid[below], grid[above] - magnitudes
    take_up = (up < down) | ((up == down) & even[above])
    return np.sign(values) * np.where(take_up, grid[above], grid[below])
