"""Trajectories in a terminal: two cells a character in colour, or one letter a cell without."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from megatron_nca.cli.pictures.drawing import Trajectories
from megatron_nca.cli.pictures.looks import cell_palette

SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/"
GAP = "  "
RESET = "\x1b[0m"
WIDTH_WITHOUT_TERMINAL = 120


def use_color(choice: str) -> bool:
    """Decide ``auto``: colour on a terminal, unless NO_COLOR is set."""
    return choice == "always" or (choice == "auto" and sys.stdout.isatty() and "NO_COLOR" not in os.environ)


def lines(shown: Trajectories, color: bool) -> Iterator[str]:
    """Yield the lines: a row a rule, as many frames as the terminal is wide."""
    width = shutil.get_terminal_size((WIDTH_WITHOUT_TERMINAL, 24)).columns
    frames = max(min(shown.frames, (width + len(GAP)) // (shown.config.grid + len(GAP))), 1)
    yield f"{shown.title}\n{shown.subtitle}"
    for name, ratio, grids in zip(shown.names, shown.ratios, shown.grids, strict=True):
        yield f"\n{name}  gzip {ratio:.3f}"
        yield GAP.join(f"step {shown.step(frame)}".ljust(shown.config.grid) for frame in range(frames))
        yield from _colored(grids[:frames], shown.config.colors) if color else _plain(grids[:frames])


def _plain(grids: npt.NDArray[np.uint8]) -> Iterator[str]:
    for row in range(grids.shape[1]):
        yield GAP.join("".join(SYMBOLS[cell] for cell in grid[row]) for grid in grids)


def _colored(grids: npt.NDArray[np.uint8], colors: int) -> Iterator[str]:
    fore = ["\x1b[38;2;{};{};{}m".format(*color) for color in cell_palette(colors)]
    back = ["\x1b[48;2;{};{};{}m".format(*color) for color in cell_palette(colors)]
    for row in range(0, grids.shape[1], 2):
        # An odd side leaves half a character in the last row.
        pairs = [(grid[row], grid[row + 1] if row + 1 < len(grid) else None) for grid in grids]
        yield GAP.join(
            "".join(
                fore[upper[x]] + (back[lower[x]] if lower is not None else "") + "▀" for x in range(len(upper))
            ) + RESET
            for upper, lower in pairs
        )  # fmt: skip
