"""Delayed scaling's update against its statement; casts of a shard against casts of the whole."""

import numpy as np
import pytest
import torch

from megatron_nca.rehearsal.extension import recipes
from megatron_nca.rehearsal.extension.names import DType
from tests.te.fp8_numbers import nearest

update = recipes.fused_amax_and_scale_update_after_reduction


def stated(histories, step_amax, scale, algorithm, largest, margin):
    """One tensor's history (oldest first, the running step not in it) and scale after a step, in float64."""
    amax = step_amax if algorithm == "most_recent" else max(*histories, step_amax)
    return [*histories[1:], step_amax], (largest / amax / 2.0**margin if amax > 0 else scale)


@pytest.mark.parametrize("algorithm", ["max", "most_recent"])
@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize("length", [2, 16])
def test_scale_follows_the_history(algorithm, margin, length):
    generator = np.random.default_rng(length)
    history, scale = torch.zeros(length, 3), torch.ones(3)
    expected = [([0.0] * (length - 1), 1.0) for _ in range(3)]
    for _ in range(3 * length):
        amax = 2.0 ** generator.uniform(-8, 8, 3).astype(np.float32)
        history[0] = torch.as_tensor(amax)
        update(history[0].clone(), [history], [scale], algorithm, DType.kFloat8E4M3, margin)
        expected = [stated(h, float(a), s, algorithm, 448.0, margin) for (h, s), a in zip(expected, amax, strict=True)]
        assert np.allclose(scale.double().numpy(), [s for _, s in expected], rtol=1e-6)
        assert np.allclose(history[1:].double().numpy().T, [h for h, _ in expected])
        assert not history[0].any(), "the next step's row is empty"


def test_the_magnitude_of_all_ranks_counts():
    history, scale = torch.zeros(4, 1), torch.ones(1)
    history[0] = 1.0
    update(torch.tensor([4.0]), [history], [scale], "max", DType.kFloat8E4M3, 0)
    assert scale.item() == 112


def test_histories_lie_in_the_buffer_in_turn():
    histories, scales = [torch.zeros(4, 2), torch.zeros(4, 1)], [torch.ones(2), torch.ones(1)]
    update(torch.tensor([1.0, 2.0, 4.0]), histories, scales, "max", DType.kFloat8E4M3, 0)
    assert [scale.tolist() for scale in scales] == [[448, 224], [112]]


@pytest.mark.parametrize("amax", [float("inf"), float("nan")])
def test_a_step_that_overflowed_leaves_the_scale(amax):
    history, scale = torch.zeros(4, 1), torch.full((1,), 8.0)
    update(torch.tensor([amax]), [history], [scale], "most_recent", DType.kFloat8E5M2, 0)
    assert scale.item() == 8


def test_what_did_not_run_stays_as_it_is():
    history, scale = torch.zeros(4, 1), torch.full((1,), 8.0)
    history[2] = 5.0
    before = history.clone()
    update(torch.zeros(1), [history], [scale], "max", DType.kFloat8E4M3, 0)
    assert torch.equal(history, before)
    assert scale.item() == 8


def test_updates_happen_in_place():
    history, scale = torch.zeros(4, 1), torch.ones(1)
    pointers = history.data_ptr(), scale.data_ptr()
    update(torch.ones(1), [history], [scale], "max", DType.kFloat8E4M3, 0)
    assert (history.data_ptr(), scale.data_ptr()) == pointers


ROWS, COLUMNS = 160, 192
SHARD = slice(5000, 21_000)


def weight():
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))


def inside_alone():
    """The weight as float64, zero outside the shard."""
    flat = np.zeros(ROWS * COLUMNS)
    flat[SHARD] = weight().double().numpy().reshape(-1)[SHARD]
    return flat.reshape(ROWS, COLUMNS)


def blocks(matrix, rows, columns):
    padded = np.pad(np.abs(matrix), ((0, -matrix.shape[0] % rows), (0, -matrix.shape[1] % columns)))
    return padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns).max((1, 3))


def test_a_shard_finds_the_magnitudes_of_its_part_of_every_block():
    amax = torch.full((2, 4), 9.0)
    recipes.fp8_block_scaling_compute_partial_amax(weight().reshape(-1)[SHARD], amax, ROWS, COLUMNS, SHARD.start, 128)
    assert np.array_equal(amax[:, :2].double().numpy(), blocks(inside_alone(), 128, 128))
    assert (amax[:, 2:] == 9).all(), "padding is left alone"


def test_a_shard_is_cast_with_its_blocks_scales():
    scale = torch.tensor([[1.0, 2.0, 0, 0], [4.0, 8.0, 0, 0]])
    out = torch.zeros(SHARD.stop - SHARD.start, dtype=torch.uint8)
    shard = weight().reshape(-1)[SHARD]
    recipes.fp8_block_scaling_partial_cast(shard, out, scale, ROWS, COLUMNS, SHARD.start, 128, DType.kFloat8E4M3)
    whole = weight().double().numpy().copy()
    for row, column, factor in ((0, 0, 1), (0, 128, 2), (128, 0, 4), (128, 128, 8)):
        whole[row : row + 128, column : column + 128] *= factor
    expected = nearest(whole.reshape(-1)[SHARD], "kFloat8E4M3")
    assert np.array_equal(out.view(torch.float8_e4m3fn).double().numpy(), expected)


def test_a_shard_finds_the_magnitudes_of_its_part_of_every_group():
    rowwise, columnwise = torch.zeros(256, 8), torch.zeros(8, 256)
    shard = weight().reshape(-1)[SHARD]
    recipes.mxfp8_scaling_compute_partial_amax(shard, rowwise, columnwise, ROWS, COLUMNS, SHARD.start)
    assert np.array_equal(rowwise[:ROWS, :6].double().numpy(), blocks(inside_alone(), 1, 32))
    assert np.array_equal(columnwise[:5, :COLUMNS].double().numpy(), blocks(inside_alone(), 32, 1))


def test_a_shard_is_cast_along_rows_and_along_columns():
    exponents = torch.Generator().manual_seed(1)
    rowwise = torch.randint(120, 130, (256, 8), generator=exponents, dtype=torch.uint8)
    columnwise = torch.randint(120, 130, (8, 256), generator=exponents, dtype=torch.uint8)
    outputs = [torch.zeros(SHARD.stop - SHARD.start, dtype=torch.uint8) for _ in range(2)]
    shard = weight().reshape(-1)[SHARD]
    recipes.mxfp8_scaling_partial_cast(shard, outputs[0], outputs[1], rowwise, columnwise, ROWS, COLUMNS, SHARD.start)
    powers = [2.0 ** (127.0 - held.double().numpy()) for held in (rowwise[:ROWS, :6], columnwise[:5, :COLUMNS])]
    spread = powers[0].repeat(32, 1), powers[1].repeat(32, 0)
    for output, factors in zip(outputs, spread, strict=True):
        expected = nearest((weight().double().numpy() * factors).reshape(-1)[SHARD], "kFloat8E4M3")
        assert np.array_equal(output.view(torch.float8_e4m3fn).double().numpy(), expected)
