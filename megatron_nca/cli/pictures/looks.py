"""One look for every picture: inks, the style of axes, and the colours of cells."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_nca.atomic_files import atomic_write

INK, FAINT, RULE, PAPER = "#22272e", "#6e7781", "#d0d7de", "#ffffff"
ACCENT, ACCENT_TINT = "#c2410c", "#fdeadd"
SERIES = ("#c2410c", "#1d6a86", "#8a6d1f", "#5b4a8a", "#3f7d4e", "#8c3f63")
TEXT_COLOR = "#c9d1d9"
STYLE: dict[str, Any] = {
    "figure.facecolor": PAPER, "axes.edgecolor": RULE, "axes.labelcolor": INK, "axes.titlecolor": INK,
    "axes.titlelocation": "left", "axes.titlesize": 11, "axes.titleweight": "bold", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#eaeef2", "xtick.color": INK,
    "ytick.color": INK, "font.size": 9.5, "legend.frameon": False, "axes.formatter.useoffset": False,
}  # fmt: skip
CELL_COLORS = (
    "#16324f", "#f4b942", "#d1495b", "#3c91a8", "#f2efe6", "#66a182", "#8d5a97", "#e07a5f", "#a3c4bc", "#2e2e2e",
)  # fmt: skip


def cell_palette(colors: int) -> npt.NDArray[np.uint8]:
    """Return the colours of cells, uint8 (colors, 3).

    Up to ten are chosen by hand; more walk around the hues by the golden angle with lightness in turns, so that neighbouring
    numbers, which the process does not treat as similar, do not look so.
    """
    if colors <= len(CELL_COLORS):
        return np.array([[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in CELL_COLORS[:colors]], dtype=np.uint8)
    levels = (0.30, 0.72, 0.50, 0.86)
    walked = [colorsys.hls_to_rgb(0.56 + place * 0.381966, levels[place % 4], 0.52) for place in range(colors)]
    return np.array([[round(255 * part) for part in color] for color in walked], dtype=np.uint8)


def count(number: float) -> str:
    """Write a number of tokens or samples briefly: 164M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def save(figure: Any, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=160, format="png")
