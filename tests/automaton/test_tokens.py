import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_nca import NCAConfig
from megatron_nca.automaton.tokens import decode_frames, decode_patches, encode_frames, encode_patches, frames_for


def test_a_patch_is_a_number_of_base_colors_row_by_row():
    config = NCAConfig(grid=4, colors=10, patch=2)
    grid = np.arange(16, dtype=np.uint8).reshape(4, 4) % 10
    # Cells 0 1 / 4 5 of the first patch; the first cell is the lowest digit.
    assert encode_patches(config, grid)[0] == 0 + 10 * 1 + 100 * 4 + 1000 * 5
    np.testing.assert_array_equal(encode_patches(config, grid)[1:], [7632, 5498 - 5498 + 3 * 1000 + 2 * 100 + 9 * 10 + 8, 5410])


def test_a_frame_stands_between_delimiters():
    config = NCAConfig()
    tokens = encode_frames(config, np.zeros((2, 12, 12), dtype=np.uint8))
    assert len(tokens) == 76
    np.testing.assert_array_equal(tokens[[0, 37, 38, 75]], [10_000, 10_001, 10_000, 10_001])
    assert not tokens[1:37].any()


@settings(max_examples=60)
@given(st.integers(2, 9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32))
def test_decoding_is_the_inverse(colors, patch, side, seed):
    config = NCAConfig(grid=max(patch * side, 2 * patch if patch == 1 else patch * side), colors=colors, patch=patch)
    grids = np.random.default_rng(seed).integers(0, colors, (3, config.grid, config.grid)).astype(np.uint8)
    np.testing.assert_array_equal(decode_patches(config, encode_patches(config, grids)), grids)
    tokens = encode_frames(config, grids)
    np.testing.assert_array_equal(decode_frames(config, tokens), grids)
    np.testing.assert_array_equal(decode_frames(config, tokens[:-1]), grids[:2])


def test_frames_for_counts_the_frame_that_is_cut():
    config = NCAConfig()
    assert [frames_for(config, length) for length in (1, 38, 39, 1025)] == [1, 1, 2, 27]
