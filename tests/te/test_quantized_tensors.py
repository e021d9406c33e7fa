"""Transformer Engine's own tensors over the emulation: what they hold, and what products read of them, against float64."""

import numpy as np
import pytest
import torch

from megatron_nca.rehearsal.extension.names import DType
from tests.te.conftest import needs_transformer_engine
from tests.te.fp8_numbers import FORMATS, nearest

pytestmark = needs_transformer_engine

ROWS, COLUMNS = 192, 160


@pytest.fixture
def tex():
    import transformer_engine.pytorch
    import transformer_engine_torch

    assert transformer_engine.pytorch
    return transformer_engine_torch


def values(rows=ROWS, columns=COLUMNS, seed=0):
    """Return values whose magnitude differs in every row and column, so that every block has a scale of its own."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp2(6 * torch.randn(rows, 1, generator=generator)) * torch.exp2(
        torch.randn(1, columns, generator=generator)
    )
    return torch.randn(rows, columns, generator=generator) * spread


def delayed(dtype, scale, **usage):
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Quantizer

    return Float8Quantizer(torch.tensor([scale]), torch.zeros(1), getattr(te_dtype(), dtype), **usage)


def te_dtype():
    import transformer_engine_torch

    return transformer_engine_torch.DType


def current(dtype, **usage):
    from transformer_engine.pytorch.tensor.float8_tensor import Float8CurrentScalingQuantizer

    return Float8CurrentScalingQuantizer(fp8_dtype=getattr(te_dtype(), dtype), device=torch.device("cuda"), **usage)


def blockwise(dimensions, **usage):
    from transformer_engine.pytorch.tensor.float8_blockwise_tensor import Float8BlockQuantizer

    usage = {"rowwise": True, "columnwise": True, **usage}
    return Float8BlockQuantizer(te_dtype().kFloat8E4M3, block_scaling_dim=dimensions, **usage)


def microscaling(**usage):
    from transformer_engine.pytorch.tensor.mxfp8_tensor import MXFP8Quantizer

    return MXFP8Quantizer(te_dtype().kFloat8E4M3, **{"rowwise": True, "columnwise": True, **usage})


def rounded(matrix, scales, dtype="kFloat8E4M3"):
    """What is left of a float64 matrix: rounded at its scales."""
    return nearest(matrix * scales, dtype) / scales


def in_blocks(matrix, rows, columns, scale_of):
    """The scale of every element, given that of a block's largest magnitude."""
    scales = np.ones_like(matrix)
    for top in range(0, matrix.shape[0], rows):
        for left in range(0, matrix.shape[1], columns):
            block = np.s_[top : top + rows, left : left + columns]
            scales[block] = scale_of(np.abs(matrix[block]).max())
    return scales


def power_below(amax):
    return 2.0 ** np.floor(np.log2(448.0 / amax))


def power_for_groups(amax):
    return 2.0 ** -np.ceil(np.log2(np.float32(amax) * np.float32(1 / 448.0)).astype(np.float64))


@pytest.mark.parametrize("dtype", FORMATS)
class TestDelayed:
    def test_is_rounded_at_the_quantizer_s_scale_and_saturates(self, dtype):
        x = values()
        tensor = delayed(dtype, 2.0, rowwise=True, columnwise=True)(x)
        assert np.array_equal(tensor.dequantize().double().numpy(), rounded(x.double().numpy(), 2.0, dtype))

    def test_notes_the_largest_magnitude_since_the_last_update(self, dtype):
        quantizer = delayed(dtype, 2.0, rowwise=True, columnwise=False)
        quantizer(values())
        quantizer(values() / 2)
        assert quantizer.amax.item() == values().abs().max()

    def test_the_transpose_holds_the_same(self, dtype):
        tensor = delayed(dtype, 2.0, rowwise=True, columnwise=True)(values())
        assert torch.equal(tensor._transpose, tensor._data.t())


@pytest.mark.parametrize("dtype", FORMATS)
def test_current_scaling_takes_the_scale_from_the_tensor(dtype):
    x = values()
    tensor = current(dtype, rowwise=True, columnwise=False)(x)
    limit, amax = np.float32(FORMATS[dtype][3]), x.abs().max().numpy()
    expected = rounded(x.double().numpy(), float(limit / amax), dtype)
    assert np.allclose(tensor.dequantize().double().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("dimensions", "rows", "columns"), [(2, 128, 128), (1, 1, 128)])
class TestBlocks:
    def test_every_block_is_rounded_at_its_own_scale(self, dimensions, rows, columns):
        x = values().double().numpy()
        tensor = blockwise(dimensions)(values())
        expected = rounded(x, in_blocks(x, rows, columns, power_below))
        assert np.array_equal(tensor.dequantize().double().numpy(), expected)

    def test_columns_have_blocks_of_their_own(self, dimensions, rows, columns):
        x = values().double().numpy()
        tensor = blockwise(dimensions)(values())
        tensor.update_usage(rowwise_usage=False, columnwise_usage=True)
        expected = rounded(x, in_blocks(x, columns, rows, power_below))
        assert np.array_equal(tensor.dequantize().double().numpy(), expected)

    def test_scales_need_not_be_powers_of_two(self, dimensions, rows, columns):
        x = values()
        tensor = blockwise(dimensions, force_pow_2_scales=False)(x)
        scales = in_blocks(x.double().numpy(), rows, columns, lambda amax: np.float32(448) / np.float32(amax))
        expected = rounded((x.numpy() * scales.astype(np.float32)).astype(np.float64), 1.0) / scales
        assert np.allclose(tensor.dequantize().double().numpy(), expected, rtol=1e-6)


def test_groups_of_32_are_rounded_at_their_own_power_of_two(blackwell):
    x = values().double().numpy()
    tensor = microscaling()(values())
    assert np.array_equal(tensor.dequantize().double().numpy(), rounded(x, in_blocks(x, 1, 32, power_for_groups)))


def test_groups_want_whole_dimensions(blackwell):
    with pytest.raises(ValueError, match="multiples of 32"):
        microscaling()(values(30, 64))


MAKERS = {
    "delayed": lambda: delayed("kFloat8E4M3", 2.0, rowwise=True, columnwise=True),
    "current": lambda: current("kFloat8E5M2", rowwise=True, columnwise=True),
    "blocks": lambda: blockwise(2),
    "vectors": lambda: blockwise(1),
    "groups": microscaling,
}


@pytest.fixture(params=MAKERS)
def quantizer(request):
    if request.param == "groups":
        request.getfixturevalue("blackwell")
    return MAKERS[request.param]()


def plain(tensor, columnwise):
    """What products read of a tensor, by Transformer Engine's or the kinds' own dequantizing."""
    from megatron_nca.rehearsal.extension import quantizing

    kind = quantizing.kind_of(tensor)
    return kind.operand(tensor, not columnwise).double()


def multiply(tex, a, transposed_a, b, transposed_b, quantizer=None):
    options = (None, DType.kBFloat16, False, None, False, None, 0, False, True)
    return tex.generic_gemm(a, transposed_a, b, transposed_b, None, quantizer, DType.kFloat32, *options)[0]


class TestOfEveryKind:
    def test_internal_tensors_hold_the_same(self, quantizer):
        shown = quantizer(values())
        quantizer.internal = True
        bare = quantizer(values())
        assert not isinstance(bare, torch.Tensor)
        for name, held in shown.get_metadata().items():
            if isinstance(held, torch.Tensor):
                assert torch.equal(bare.get_metadata()[name], held), name

    def test_an_update_happens_in_the_buffers_that_are_there(self, quantizer):
        tensor = quantizer.make_empty((ROWS, COLUMNS), dtype=torch.float32)
        held = {name: value for name, value in tensor.get_metadata().items() if isinstance(value, torch.Tensor)}
        pointers = {name: value.data_ptr() for name, value in held.items()}
        quantizer.update_quantized(values(), tensor)
        assert {name: tensor.get_metadata()[name].data_ptr() for name in held} == pointers
        assert torch.equal(tensor.dequantize(), quantizer(values()).dequantize())

    def test_a_set_flag_leaves_the_tensor_as_it_is(self, quantizer, tex):
        tensor = quantizer(values())
        before = tensor.dequantize().clone()
        tex.quantize(values(seed=1), quantizer, tensor, torch.ones(1))
        assert torch.equal(tensor.dequantize(), before)

    def test_products_in_all_three_layouts(self, quantizer, tex):
        weight, inputs, gradient = (quantizer(values(*shape)) for shape in ((160, 192), (128, 192), (128, 160)))
        cases = (
            (weight, True, inputs, False, plain(inputs, False) @ plain(weight, False).t()),
            (weight, False, gradient, False, plain(gradient, False) @ plain(weight, True)),
            (inputs, False, gradient, True, plain(gradient, True).t() @ plain(inputs, True)),
        )
        for a, transposed_a, b, transposed_b, expected in cases:
            result = multiply(tex, a, transposed_a, b, transposed_b)
            assert result.shape == expected.shape
            torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))

    def test_what_a_product_reads_is_near_what_was_cast(self, quantizer):
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(ROWS, COLUMNS, generator=generator)
        tensor = quantizer(x)
        for columnwise in (False, True):
            error = (plain(tensor, columnwise) - x.double()).norm() / x.double().norm()
            assert error < 0.06, "E5M2 keeps two bits of the mantissa"

    def test_a_product_can_be_cast(self, quantizer, tex):
        weight, inputs = quantizer(values(160, 192)), quantizer(values(128, 192))
        result = multiply(tex, weight, True, inputs, False, quantizer)
        exact = multiply(tex, weight, True, inputs, False)
        assert torch.equal(result.dequantize(), quantizer(exact).dequantize())

    def test_a_bias_s_gradient_comes_with_the_cast(self, quantizer, tex):
        bias, tensor = tex.bgrad_quantize(values(), quantizer)
        torch.testing.assert_close(bias.double(), values().double().sum(0), rtol=1e-4, atol=1e-4)
        assert torch.equal(tensor.dequantize(), quantizer(values()).dequantize())

    def test_parts_are_cast_each_with_its_own_quantizer(self, quantizer, tex):
        parts = tex.split_quantize(values(), [64, 128], [quantizer, quantizer])
        for part, plain_part in zip(parts, torch.split(values(), [64, 128]), strict=True):
            assert torch.equal(part.dequantize(), quantizer(plain_part.contiguous()).dequantize())

    def test_a_tensor_reaches_a_checkpoint_as_a_plain_one(self, quantizer, tmp_path):
        tensor = quantizer(values())
        torch.save({"weight": tensor}, tmp_path / "checkpoint.pt")
        read = torch.load(tmp_path / "checkpoint.pt", weights_only=False)["weight"]
        assert type(read) is torch.Tensor
        assert torch.equal(read, tensor.dequantize())


def test_hopper_reads_a_transpose_or_nothing(tex):
    tensor = delayed("kFloat8E4M3", 2.0, rowwise=True, columnwise=False)(values(160, 192))
    with pytest.raises(RuntimeError, match="wants the transpose"):
        multiply(tex, tensor, False, values(128, 160), False)


def test_blackwell_reads_any_layout(tex, blackwell):
    tensor = delayed("kFloat8E4M3", 2.0, rowwise=True, columnwise=True)(values(160, 192))
    assert tensor._transpose is None
    result = multiply(tex, tensor, False, values(128, 160), False)
    torch.testing.assert_close(result, values(128, 160) @ tensor.dequantize(), rtol=1e-5, atol=10.0)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_data_is_transposed_and_swapped(tex, shape):
    data = torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).reshape(shape)
    assert torch.equal(tex.fp8_transpose(data, DType.kFloat8E4M3, out=None), data.movedim(-1, 0))
    out = torch.zeros(data.movedim(-1, 0).shape, dtype=torch.uint8)
    assert tex.fp8_transpose(data, DType.kFloat8E4M3, out=out) is out
    assert torch.equal(out, data.movedim(-1, 0))
    assert torch.equal(tex.swap_first_dims(data), data.transpose(0, 1))


def test_amax_is_written_where_it_is_told(tex):
    amax = torch.zeros(1)
    tex.compute_amax(values(), amax)
    assert amax.item() == values().abs().max()
