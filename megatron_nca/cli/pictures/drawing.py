"""Trajectories as pictures: a PNG with a row a rule and frames from left to right, and a GIF in which they play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_nca.atomic_files import atomic_write
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.cli.common import need
from megatron_nca.cli.pictures.looks import ACCENT, FAINT, INK, PAPER, RULE, cell_palette

FRAME_PIXELS, TILE_PIXELS = 96, 176
GAP, MARGIN = 8, 28
LABEL_WIDTH = 132
TITLE_HEIGHT = 84
CAPTION_HEIGHT = 34
SWATCH = 16
MILLISECONDS_A_FRAME = 160
LAST_FRAME_MILLISECONDS = 900


@dataclass(frozen=True)
class Trajectories:
    """What is drawn.

    Attributes:
        title: The entry.
        subtitle: What is seen.
        config: The process.
        names: Name of each trajectory.
        ratios: Compression ratio of each one's rule.
        grids: uint8 (trajectories, frames, grid, grid).
    """

    title: str
    subtitle: str
    config: NCAConfig
    names: Sequence[str]
    ratios: Sequence[float]
    grids: npt.NDArray[np.uint8]

    @property
    def frames(self) -> int:
        """Frames of each."""
        return int(self.grids.shape[1])

    def step(self, frame: int) -> int:
        """Return the step of the process at which a frame was taken."""
        return self.config.burn_in + frame * self.config.dt


def draw_png(shown: Trajectories, path: Path) -> None:
    """Draw every frame, a row a rule."""
    pen = _Pen(shown, FRAME_PIXELS)
    step = pen.pixels + GAP
    width = MARGIN + LABEL_WIDTH + shown.frames * step - GAP + MARGIN
    top = TITLE_HEIGHT + 24
    bottom = top + len(shown.grids) * step
    image = pen.canvas(width, bottom + SWATCH + MARGIN + 12)
    for frame in range(shown.frames):
        left = MARGIN + LABEL_WIDTH + frame * step
        pen.write((left + pen.pixels / 2, top - 8), str(shown.step(frame)), FAINT, 12, "ms")
    pen.write((MARGIN, top - 8), "step", FAINT, 12, "ls")
    for row in range(len(shown.grids)):
        y = top + row * step
        _draw_label(pen, shown, row, y)
        for frame in range(shown.frames):
            image.paste(pen.cells(shown.grids[row, frame]), (MARGIN + LABEL_WIDTH + frame * step, y))
    _draw_swatches(pen, bottom + 12, width)
    _write(path, lambda file: image.save(file, format="PNG", optimize=True))


def draw_gif(shown: Trajectories, path: Path) -> None:
    """Draw a tile a rule, in which its frames play."""
    pen = _Pen(shown, TILE_PIXELS)
    columns = min(4, len(shown.grids))
    rows = -(-len(shown.grids) // columns)
    step, height = pen.pixels + 2 * GAP, pen.pixels + CAPTION_HEIGHT
    width = max(2 * MARGIN + columns * step - 2 * GAP, 420)
    indexed = pen.indexed_palette()
    images = []
    for frame in range(shown.frames):
        image = pen.canvas(width, TITLE_HEIGHT + rows * height + MARGIN // 2)
        pen.write((width - MARGIN, 58), f"step {shown.step(frame)}", FAINT, 14, "rs")
        for place in range(len(shown.grids)):
            x, y = MARGIN + place % columns * step, TITLE_HEIGHT + place // columns * height
            image.paste(pen.cells(shown.grids[place, frame]), (x, y))
            pen.write((x, y + pen.pixels + 19), f"gzip {shown.ratios[place]:.3f}", INK, 14, "ls")
            pen.write((x + pen.pixels, y + pen.pixels + 19), shown.names[place], FAINT, 13, "rs")
        images.append(image.quantize(palette=indexed, dither=0))
    durations = [MILLISECONDS_A_FRAME] * (shown.frames - 1) + [LAST_FRAME_MILLISECONDS]
    options = {"save_all": True, "append_images": images[1:], "duration": durations, "loop": 0, "optimize": False}
    _write(path, lambda file: images[0].save(file, format="GIF", **options))


def _draw_label(pen: _Pen, shown: Trajectories, row: int, y: int) -> None:
    middle = y + pen.pixels // 2
    ratio, band = shown.ratios[row], shown.config.gzip
    pen.write((MARGIN, middle - 16), shown.names[row], FAINT, 13, "ls")
    pen.write((MARGIN, middle + 3), f"gzip {ratio:.3f}", INK, 16, "ls")
    length, bar = LABEL_WIDTH - 32, middle + 16
    pen.box((MARGIN, bar, MARGIN + length, bar + 4), "#eaeef2")
    if band:
        # The band is open at 1, but the bar ends there.
        lo, hi = (min(bound, 1.0) * length for bound in band)
        pen.box((MARGIN + lo, bar, MARGIN + hi, bar + 4), "#f6cdb4")
    at = MARGIN + min(ratio, 1.0) * length
    pen.box((at - 1, bar - 3, at + 1, bar + 7), ACCENT)


def _draw_swatches(pen: _Pen, y: int, width: int) -> None:
    colors = len(pen.palette)
    pen.write((MARGIN, y + SWATCH - 3), f"{colors} colours", FAINT, 12, "ls")
    room = width - 2 * MARGIN - LABEL_WIDTH
    size = min(SWATCH + 6, room / colors)
    for color in range(colors):
        left = MARGIN + LABEL_WIDTH + color * size
        pen.box((left, y, left + max(size - 3, 2), y + SWATCH - 1), tuple(map(int, pen.palette[color])))


class _Pen:
    """Draws on one canvas at a time, with whole pixels a cell."""

    def __init__(self, shown: Trajectories, target: int) -> None:
        self.images: Any = need("PIL.Image")
        self.drawing: Any = need("PIL.ImageDraw")
        self.fonts: Any = need("PIL.ImageFont")
        self.shown = shown
        self.scale = max(target // shown.config.grid, 1)
        self.pixels = self.scale * shown.config.grid
        self.palette = cell_palette(shown.config.colors)
        self.draw: Any = None

    def canvas(self, width: int, height: int) -> Any:
        """Begin a picture with its title."""
        image = self.images.new("RGB", (int(width), int(height)), PAPER)
        self.draw = self.drawing.Draw(image)
        self.write((MARGIN, 36), self._fitting(self.shown.title, width - 2 * MARGIN, 20), INK, 20, "ls")
        self.write((MARGIN, 58), self.shown.subtitle, FAINT, 14, "ls")
        self.box((MARGIN, 68, width - MARGIN, 68), RULE)
        return image

    def write(self, place: tuple[float, float], text: str, color: str, size: int, anchor: str) -> None:
        """Write a text; Pillow's anchors."""
        self.draw.text(place, text, fill=color, font=self.fonts.load_default(size), anchor=anchor)

    def box(self, corners: tuple[float, float, float, float], color: Any) -> None:
        """Fill a box, its corners included."""
        self.draw.rectangle(corners, fill=color)

    def cells(self, grid: npt.NDArray[np.uint8]) -> Any:
        """Return one frame as an image."""
        return self.images.fromarray(np.kron(self.palette[grid], np.ones((self.scale, self.scale, 1), dtype=np.uint8)))

    def indexed_palette(self) -> Any:
        """Return a palette that holds every colour of cells, and what text fades through."""
        inks = [_mix(color, share / 16) for color in (INK, FAINT, RULE) for share in range(17)]
        entries = [tuple(map(int, color)) for color in self.palette] + inks
        image = self.images.new("P", (1, 1))
        flat = [part for color in entries for part in color]
        image.putpalette(flat + flat[:3] * (256 - len(entries)))
        return image

    def _fitting(self, text: str, width: float, size: int) -> str:
        font = self.fonts.load_default(size)
        while len(text) > 8 and font.getlength(text) > width:
            text = text[:-2] + "…"
        return text


def _mix(color: str, share: float) -> tuple[int, int, int]:
    """Blend a colour with the paper."""
    red, green, blue = (round(255 + share * (int(color[at : at + 2], 16) - 255)) for at in (1, 3, 5))
    return red, green, blue


def _write(path: Path, write: Any) -> None:
    """Write a file whole or not at all."""
    with atomic_write(path) as partial, open(partial, "wb") as file:
        write(file)
