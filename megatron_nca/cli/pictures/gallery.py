"""The page of ``preview --html``: trajectories of several numbers of colours, computed here and chosen by band there.

For each number of colours the page has the distribution of the ratios of random rules, and trajectories of some of them: up to
so many in every tenth of the range, so that rare bands can be looked at too.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

import megatron_nca
from megatron_nca.atomic_files import atomic_write
from megatron_nca.automaton.config import DOMAIN_BANDS, NCAConfig
from megatron_nca.automaton.source import NCASource
from megatron_nca.cli.common import progress
from megatron_nca.cli.pictures.looks import cell_palette
from megatron_nca.cli.pictures.terminal import SYMBOLS
from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import ConfigError

COLORS = (2, 3, 4, 6, 8, 10, 12, 16, 24, 32)
CANDIDATES = 512
FRAMES = 32
BIN = 0.02
STRATUM = 0.1
BUDGET = 3_000_000
"""Cells of a page, a byte each: larger grids get fewer frames."""


def write_gallery(entry: NCAEntry, args: argparse.Namespace, path: Path) -> None:
    """Write the page.

    Args:
        entry: Gives the process and the band shown first.
        args: Give seed, split, frames, and how many rules stand in each tenth of the range.
        path: HTML file to write.
    """
    seed = args.seed if entry.seed is None else entry.seed
    configs = list(_configs(entry.config))
    frames = args.frames or max(min(FRAMES, BUDGET // (len(configs) * 8 * args.rules * entry.config.grid**2)), 4)
    with progress("preview", len(configs), "set", shown=not args.json) as advance:
        sets = []
        for config in configs:
            sets.append(_set(NCASource(config, seed, args.split), args.rules, frames))
            advance(1)
    data = {
        "entry": entry.text, "grid": entry.config.grid, "frames": frames, "burn_in": entry.config.burn_in,
        "dt": entry.config.dt, "colors": entry.config.colors, "band": entry.config.gzip, "bin": BIN, "symbols": SYMBOLS,
        "process": _process(entry.config), "bands": {name: list(band) for name, band in DOMAIN_BANDS.items()}, "sets": sets,
        "version": megatron_nca.__version__,
    }  # fmt: skip
    with atomic_write(path) as partial:
        partial.write_text(_page(entry, data), encoding="utf-8")


def _configs(config: NCAConfig) -> Iterator[NCAConfig]:
    for colors in sorted({*COLORS, config.colors}):
        try:
            yield replace(config, colors=colors, gzip=None)
        except ConfigError:
            # So many colours make more patch tokens than there are ids.
            return


def _set(source: NCASource, per_stratum: int, frames: int) -> dict[str, Any]:
    scores = source.scores(range(CANDIDATES))
    chosen = _spread(scores, per_stratum)
    grids = source.grids_batch(chosen, frames)
    counts = np.histogram(scores, np.arange(0, 1 + BIN, BIN))[0]
    palette = cell_palette(source.config.colors)
    symbols = np.array(list(SYMBOLS))
    return {
        "colors": source.config.colors,
        "palette": ["#{:02x}{:02x}{:02x}".format(*color) for color in palette],
        "histogram": [int(number) for number in counts],
        "rules": [
            {"number": int(number), "ratio": round(float(scores[number]), 4), "cells": "".join(symbols[cells.ravel()])}
            for number, cells in zip(chosen, grids, strict=True)
        ],
    }


def _spread(scores: Any, per_stratum: int) -> list[int]:
    """Choose the first rules of every tenth of the range, in the order of their ratios."""
    strata: dict[int, list[int]] = {}
    for number, score in enumerate(scores):
        members = strata.setdefault(int(score / STRATUM), [])
        if len(members) < per_stratum:
            members.append(number)
    return sorted((number for members in strata.values() for number in members), key=lambda number: float(scores[number]))


def _process(config: NCAConfig) -> list[str]:
    """Write the settings that are not the defaults, but for those that the page's sliders set."""
    default = NCAConfig()
    names = ("grid", "patch", "temperature", "identity_bias", "burn_in", "dt")
    return [f"{name}={getattr(config, name)!r}" for name in names if getattr(config, name) != getattr(default, name)]


def _page(entry: NCAEntry, data: dict[str, Any]) -> str:
    template = resources.files("megatron_nca.cli.pictures").joinpath("gallery.html").read_text(encoding="utf-8")
    # Within a script element only "</" and "<!--" could end it.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return template.replace("{{title}}", html.escape(entry.text)).replace("{{data}}", text)
