"""The page of ``preview --html``: rules of a process, computed in the page by the same integers as here.

Its parts lie in ``page/``: the process (``automaton.js``), the ratio (``deflate.js``), a launch's checks (``judge.js``), what a
worker does, and the page around them. Python gives what must be the same on both sides: the quantile tables, the limits of an
entry, the names of the random stream, the colours.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import megatron_nca
from megatron_nca.atomic_files import atomic_write
from megatron_nca.automaton import config as limits
from megatron_nca.automaton import cost, tables
from megatron_nca.automaton.config import DOMAIN_BANDS, NCAConfig
from megatron_nca.automaton.source import STREAM_VERSION
from megatron_nca.cli.common import DEFAULT_SEED
from megatron_nca.cli.pictures.looks import cell_palette
from megatron_nca.data import band
from megatron_nca.data.entry import DEFAULT_TRAJECTORY, MAX_COST, NCAEntry

RULES = 500
FRAMES = 32
BIN = 0.02
BUDGET = 6_000_000
"""Cells that a page holds, a byte each: larger grids get fewer frames."""
PARTS = (
    *("page.css", "automaton.js", "deflate.js", "judge.js"),
    *("worker.js", "choice.js", "page.js", "controls.js"),
)


def write_gallery(entry: NCAEntry, args: argparse.Namespace, path: Path) -> None:
    """Write the page.

    Args:
        entry: Gives the process and the band shown first.
        args: Give seed, split, the first rule, how many rules and how many frames of each.
        path: HTML file to write.
    """
    with atomic_write(path) as partial:
        partial.write_text(_page(entry, _data(entry, args)), encoding="utf-8")


def _data(entry: NCAEntry, args: argparse.Namespace) -> dict[str, Any]:
    seed = args.seed if entry.seed is None else entry.seed
    return {
        "config": _process(entry.config),
        "defaults": {**_process(NCAConfig()), "seed": str(DEFAULT_SEED), "split": "train"},
        "band": list(entry.config.gzip or (0.0, 1.0)),
        "bands": {name: list(bounds) for name, bounds in DOMAIN_BANDS.items()},
        "bin": BIN,
        "first": args.first,
        "rules": args.rules or RULES,
        "frames": args.frames,
        "most_frames": FRAMES,
        "budget": BUDGET,
        # As text: a seed may be larger than the integers of JavaScript.
        "stream": {"version": STREAM_VERSION, "rules": "None", "seed": str(seed), "split": args.split},
        "limits": _limits(),
        "tables": {
            "weights": packed(tables.weight_table()),
            "odds": packed(tables.odds_table()),
            "gumbel": packed(tables.gumbel_table()),
        },
        "palettes": {colors: _palette(colors) for colors in range(2, limits.MAX_COLORS + 1)},
        "version": megatron_nca.__version__,
    }


def _process(config: NCAConfig) -> dict[str, float]:
    names = ("grid", "colors", "patch", "temperature", "identity_bias", "burn_in", "dt")
    return {name: getattr(config, name) for name in names}


def _limits() -> dict[str, Any]:
    """Return what a launch asks of an entry, in the numbers of its own checks."""
    return {
        "ranges": {
            "grid": [2, limits.MAX_GRID],
            "colors": [2, limits.MAX_COLORS],
            "patch": [1, limits.MAX_GRID],
            "temperature": [0, limits.MAX_TEMPERATURE],
            "identity_bias": [-limits.MAX_IDENTITY_BIAS, limits.MAX_IDENTITY_BIAS],
            "burn_in": [0, limits.MAX_STEPS],
            "dt": [1, limits.MAX_DT],
        },
        "vocabulary": limits.MAX_VOCAB_SIZE,
        "trajectory": DEFAULT_TRAJECTORY,
        "most": MAX_COST,
        "cost": {
            "cell": cost.CELL, "colour": cost.COLOUR, "noise": cost.NOISE, "noisy": cost.NOISY,
            "byte": cost.BYTE, "rule": cost.RULE,
        },
        "band": {
            "least": band.LEAST, "clear": band.CLEAR, "work": band.WORK, "atOnce": band.AT_ONCE, "atLeast": band.AT_LEAST,
            "seed": str(DEFAULT_SEED),
        },
    }  # fmt: skip


def packed(table: npt.NDArray[np.int32]) -> dict[str, Any]:
    """Return a table that never falls as its first value and its differences, seven bits a byte, the lowest first.

    Args:
        table: int32 (65536,), no value below the one before it.
    """
    steps = bytearray()
    for step in np.diff(table).tolist():
        while step > 127:
            steps.append(step & 127 | 128)
            step >>= 7
        steps.append(step)
    return {"first": int(table[0]), "steps": base64.b64encode(steps).decode()}


def _palette(colors: int) -> list[str]:
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in cell_palette(colors)]


def _page(entry: NCAEntry, data: dict[str, Any]) -> str:
    folder = resources.files("megatron_nca.cli.pictures").joinpath("page")
    page = folder.joinpath("page.html").read_text(encoding="utf-8")
    for part in PARTS:
        page = page.replace("{{" + part + "}}", folder.joinpath(part).read_text(encoding="utf-8"))
    # Within a script element only "</" and "<!--" could end it.
    told = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return page.replace("{{title}}", html.escape(entry.text)).replace("{{data}}", told)
