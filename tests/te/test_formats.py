import numpy as np
import pytest
import torch

from megatron_nca.rehearsal.extension import formats
from megatron_nca.rehearsal.extension.names import DType
from tests.te.fp8_numbers import FORMATS, nearest, numbers

NAMES = tuple(FORMATS)


def spread(count=20_000, seed=0):
    """Values of all magnitudes that FP8 has, and some that it has not."""
    generator = np.random.default_rng(seed)
    return (generator.choice([-1, 1], count) * 2.0 ** generator.uniform(-20, 18, count)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
class TestCast:
    def cast(self, values, name):
        dtype = DType[name]
        return formats.values(formats.cast(torch.as_tensor(values), dtype), dtype).double().numpy()

    def test_gives_the_nearest_number(self, name):
        values = spread()
        assert np.array_equal(self.cast(values, name), nearest(values.astype(np.float64), name))

    def test_ties_go_to_the_even_mantissa(self, name):
        grid = np.array([value for value, _ in numbers(name)])
        middles = ((grid[1:] + grid[:-1]) / 2).astype(np.float32)
        assert np.array_equal(self.cast(middles, name), nearest(middles.astype(np.float64), name))

    def test_keeps_every_number_of_the_format(self, name):
        grid = np.array([value for value, _ in numbers(name)], dtype=np.float32)
        assert np.array_equal(self.cast(np.concatenate([grid, -grid]), name), np.concatenate([grid, -grid]))

    def test_saturates(self, name):
        limit = FORMATS[name][3]
        assert self.cast(np.float32([1e30, -1e30, np.inf, -np.inf]), name).tolist() == [limit, -limit, limit, -limit]

    def test_keeps_nan(self, name):
        assert np.isnan(self.cast(np.float32([np.nan]), name)).all()

    def test_flushes_what_is_less_than_half_the_smallest_number(self, name):
        smallest = numbers(name)[1][0]
        assert self.cast(np.float32([smallest * 0.49, smallest * 0.51]), name).tolist() == [0, smallest]


class TestScale:
    def test_is_the_largest_number_over_the_largest_magnitude(self):
        amax = torch.tensor([0.5, 3.0, 448.0, 1e-3])
        expected = 448.0 / amax.double().numpy()
        assert np.allclose(formats.scale_from_amax(amax, 448.0).double().numpy(), expected, rtol=1e-7, atol=0)

    def test_brings_the_largest_magnitude_to_the_largest_number(self):
        amax = torch.as_tensor(np.abs(spread(1000)))
        scaled = amax * formats.scale_from_amax(amax, 57344.0)
        assert torch.allclose(scaled, torch.full_like(scaled, 57344.0), rtol=1e-6)

    def test_a_power_of_two_is_rounded_down(self):
        amax = np.abs(spread(1000)).astype(np.float64)
        scale = formats.scale_from_amax(torch.as_tensor(amax.astype(np.float32)), 448.0, power_of_two=True)
        assert np.array_equal(scale.numpy(), 2.0 ** np.floor(np.log2(448.0 / amax)))

    @pytest.mark.parametrize("amax", [0.0, float("inf"), float("nan")])
    def test_is_one_where_no_magnitude_says_anything(self, amax):
        assert formats.scale_from_amax(torch.tensor([amax]), 448.0).item() == 1

    def test_of_a_magnitude_too_small_for_float32_is_the_largest_there_is(self):
        assert formats.scale_from_amax(torch.tensor([1e-38]), 57344.0).item() == torch.finfo(torch.float32).max

    def test_epsilon_is_the_least_magnitude(self):
        assert formats.scale_from_amax(torch.tensor([1e-9, 0.0]), 448.0, epsilon=0.5).tolist() == [896, 896]


class TestPowersOfTwo:
    def test_are_the_smallest_that_bring_a_group_into_range(self):
        amax = np.abs(spread(5000)).astype(np.float64)
        exponents = formats.e8m0_from_amax(torch.as_tensor(amax.astype(np.float32)), 448.0)
        expected = 2.0 ** np.ceil(np.log2(np.float32(amax) * np.float32(1 / 448.0)).astype(np.float64))
        assert np.array_equal(formats.e8m0_value(exponents).double().numpy(), expected)

    def test_value_and_reciprocal_are_inverse(self):
        exponents = torch.arange(1, 254, dtype=torch.uint8)
        assert torch.equal(formats.e8m0_value(exponents) * formats.e8m0_reciprocal(exponents), torch.ones(253))

    def test_zeros_stay_zeros(self):
        exponent = formats.e8m0_from_amax(torch.tensor([0.0]), 448.0)
        assert exponent.item() == 0
        assert formats.e8m0_reciprocal(exponent).item() == 1

    def test_nan_and_infinity_are_told(self):
        exponents = formats.e8m0_from_amax(torch.tensor([float("nan"), float("inf")]), 448.0)
        assert exponents.tolist() == [0xFF, 0xFE]


def test_amax_of_nothing_is_zero():
    assert formats.amax(torch.empty(0)).item() == 0
    assert formats.amax(torch.tensor([-3.0, 2.0])).item() == 3
