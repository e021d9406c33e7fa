"""Tokens: a frame is cut into patches, a patch is one number, a frame stands between two delimiters.

A patch's token is sum_j cell[j] * colors**j, j running row by row over the patch; patches run row by row over the frame.
``<grid>`` = colors**(patch**2) opens a frame and ``</grid>``, one more, closes it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.config import NCAConfig

Grids = npt.NDArray[np.uint8]
Tokens = npt.NDArray[np.int32]


def encode_patches(config: NCAConfig, grids: Grids) -> Tokens:
    """Turn cells into patch tokens.

    Args:
        config: Gives colours and patch.
        grids: uint8 (..., grid, grid).

    Returns:
        int32 (..., patches), delimiters left out.
    """
    side, patch = config.grid // config.patch, config.patch
    cells = grids.reshape(*grids.shape[:-2], side, patch, side, patch)
    cells = np.swapaxes(cells, -3, -2).reshape(*grids.shape[:-2], side * side, patch * patch)
    places = config.colors ** np.arange(patch * patch, dtype=np.int64)
    return (cells @ places).astype(np.int32)


def decode_patches(config: NCAConfig, patches: Tokens) -> Grids:
    """Turn patch tokens (..., patches) back into cells, uint8 (..., grid, grid)."""
    side, patch = config.grid // config.patch, config.patch
    places = config.colors ** np.arange(patch * patch, dtype=np.int64)
    cells = (patches[..., None].astype(np.int64) // places) % config.colors
    cells = cells.reshape(*patches.shape[:-1], side, side, patch, patch)
    return np.swapaxes(cells, -3, -2).reshape(*patches.shape[:-1], config.grid, config.grid).astype(np.uint8)


def encode_frames(config: NCAConfig, grids: Grids) -> Tokens:
    """Lay frames end to end, each between its delimiters.

    Args:
        config: Gives colours and patch.
        grids: uint8 (..., frames, grid, grid).

    Returns:
        int32 (..., frames * frame_length).
    """
    framed = np.empty((*grids.shape[:-2], config.frame_length), dtype=np.int32)
    framed[..., 0] = config.patch_tokens
    framed[..., 1:-1] = encode_patches(config, grids)
    framed[..., -1] = config.patch_tokens + 1
    return framed.reshape(*grids.shape[:-3], -1)


def decode_frames(config: NCAConfig, tokens: Tokens) -> Grids:
    """Read the whole frames of a token sequence back into cells.

    Args:
        config: Gives colours and patch.
        tokens: int32 (length,), starting with a frame; a last frame that is cut is left out.

    Returns:
        uint8 (frames, grid, grid).
    """
    frames = len(tokens) // config.frame_length
    framed = np.asarray(tokens[: frames * config.frame_length]).reshape(frames, config.frame_length)
    return decode_patches(config, framed[:, 1:-1])


def frames_for(config: NCAConfig, length: int) -> int:
    """Number of frames that ``length`` tokens reach into."""
    return -(-length // config.frame_length)
