"""The page of ``compare --html``: curves over text tokens, the difference with its margin, what the runs tell of themselves.

One file of HTML and SVG, without a script and without anything from elsewhere.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import megatron_nca
from megatron_nca.atomic_files import atomic_write
from megatron_nca.cli.pictures.looks import FAINT, INK, RULE, SERIES, count
from megatron_nca.cli.runs.comparing import HEADER, Comparison, closing, rows
from megatron_nca.cli.runs.curves import Point, Run

RUN, BASELINE = SERIES[0], SERIES[1]
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 40
UNSEEN = 0.04
MOST_POINTS = 400
"""Points of a drawn curve; more of them are means of neighbours."""
STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.05rem; margin-top: 2rem; }}
svg {{ width: 100%; height: auto; }} svg text {{ font: 12px system-ui, sans-serif; fill: {INK}; }}
svg .faint {{ fill: {FAINT}; }} .answer {{ border-left: 4px solid {RULE}; padding-left: 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .2rem .9rem .2rem 0; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }} th {{ border-bottom: 1px solid {RULE}; font-weight: 600; }}
code {{ overflow-wrap: anywhere; }}
.key {{ display: inline-block; width: 1.2rem; height: .3rem; vertical-align: middle; margin-right: .4rem; }}
"""


def write_page(found: Comparison, path: Path) -> None:
    """Write the page.

    Args:
        found: The comparison.
        path: HTML file to write.
    """
    with atomic_write(path) as partial:
        partial.write_text("".join(_page(found)), encoding="utf-8")


def _page(found: Comparison) -> Iterator[str]:
    title = f"{found.runs[0].name} beside {found.baselines[0].name}"
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    yield f"<h1>{html.escape(title)}</h1>"
    yield '<div class="answer">' + "".join(f"<p>{html.escape(line)}</p>" for line in closing(found)) + "</div>"
    yield (
        f'<p><span class="key" style="background:{RUN}"></span>run, {_seeds(found.runs)} &nbsp; '
        f'<span class="key" style="background:{BASELINE}"></span>baseline, {_seeds(found.baselines)}</p>'
    )
    yield f"<h2>{found.of.capitalize()} loss over text tokens</h2>" + _losses(found)
    yield "<h2>Difference, run minus baseline" + ("" if found.margin is None else ", with its 95 % margin") + "</h2>"
    yield _differences(found)
    if phase := _phase(found):
        yield "<h2>The NCA phases: training loss over NCA tokens</h2>" + phase
    yield "<h2>Numbers</h2>" + _numbers(found)
    yield "<h2>The runs</h2>"
    for kind, group in (("run", found.runs), ("baseline", found.baselines)):
        yield from (_told(kind, one) for one in group)
    yield f'<p class="faint">megatron-nca {megatron_nca.__version__}</p></html>'


def _seeds(group: Sequence[Run]) -> str:
    return f"{len(group)} seed{'s' if len(group) > 1 else ''}"


@dataclass(frozen=True)
class _Axes:
    """Maps numbers on a drawing."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 900
    height: int = 320

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0] or 1)
        up = (y - self.y[0]) / (self.y[1] - self.y[0] or 1)
        return LEFT + across * (self.width - LEFT - RIGHT), self.height - BOTTOM - up * (self.height - TOP - BOTTOM)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.place(x, y)) for x, y in points)

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float, name: str, opacity: float = 1.0) -> str:
        return (
            f'<polyline class="{name}" fill="none" stroke="{color}" stroke-width="{width}" stroke-opacity="{opacity}" '
            f'stroke-linejoin="round" points="{self.path(points)}"/>'
        )

    def drawn(self, inside: str, label: str, unit: str) -> str:
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{html.escape(label)}">'
            f"{''.join(self._grid())}{inside}"
            f'<text x="{self.width - RIGHT}" y="{self.height - 6}" text-anchor="end" class="faint">{unit}</text></svg>'
        )

    def _grid(self) -> Iterator[str]:
        for tick in ticks(*self.y):
            left, y = self.place(self.x[0], tick)
            yield f'<line x1="{left}" x2="{self.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{RULE}" stroke-width=".7"/>'
            yield f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>'
        for tick in ticks(*self.x):
            x, bottom = self.place(tick, self.y[0])
            yield f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{count(tick)}</text>'


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Return round numbers from one to another, about so many."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _losses(found: Comparison) -> str:
    # The first steps fall by so much that the rest would be one line; they lead out of the drawing.
    later = found.text >= found.text[0] + UNSEEN * (found.text[-1] - found.text[0])
    every = np.concatenate(found.losses)[:, later]
    least, most = float(every.min()), float(every.max())
    room = (most - least or 1) * 0.04
    axes = _Axes((float(found.text[0]), float(found.text[-1])), (least - room, most + room))
    inside = []
    for name, color, losses in (("baseline", BASELINE, found.losses[1]), ("run", RUN, found.losses[0])):
        if len(losses) > 1:
            inside += [axes.line(_pairs(found, one), color, 1, f"{name} seed", 0.35) for one in losses]
        inside.append(axes.line(_pairs(found, losses.mean(axis=0)), color, 2.4, f"{name} mean"))
    return axes.drawn("".join(inside), f"{found.of} loss over text tokens", "text tokens")


def _differences(found: Comparison) -> str:
    margin = np.zeros_like(found.difference) if found.margin is None else found.margin
    low, high = min(float((found.difference - margin).min()), 0.0), max(float((found.difference + margin).max()), 0.0)
    room = (high - low or 1) * 0.06
    axes = _Axes((float(found.text[0]), float(found.text[-1])), (low - room, high + room), height=240)
    inside = ""
    if found.margin is not None:
        edge = [*_pairs(found, found.difference + margin), *reversed(_pairs(found, found.difference - margin))]
        inside += f'<polygon class="margin" fill="{RUN}" fill-opacity=".15" points="{axes.path(edge)}"/>'
    zero = [(axes.x[0], 0.0), (axes.x[1], 0.0)]
    inside += axes.line(zero, INK, 1, "zero") + axes.line(_pairs(found, found.difference), RUN, 2.4, "difference")
    return axes.drawn(inside, "difference of the losses over text tokens", "text tokens")


def _pairs(found: Comparison, values: Iterable[float]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(found.text, values, strict=True)]


def _phase(found: Comparison) -> str:
    curves = [_thinned([point for point in one.training if point.text == 0 and point.nca > 0]) for one in found.runs]
    curves = [curve for curve in curves if len(curve) > 1]
    if not curves:
        return ""
    every = [point for curve in curves for point in curve]
    losses = [loss for _, loss in every]
    axes = _Axes((0.0, max(nca for nca, _ in every)), (min(losses), max(losses)), height=220)
    return axes.drawn(
        "".join(axes.line(curve, RUN, 1.6, "phase") for curve in curves), "NCA loss over NCA tokens", "NCA tokens"
    )


def _thinned(points: Sequence[Point]) -> list[tuple[float, float]]:
    pieces = np.array_split(np.arange(len(points)), min(MOST_POINTS, len(points))) if points else []
    parts = [[points[place] for place in piece] for piece in pieces]
    return [(float(np.mean([one.nca for one in part])), float(np.mean([one.loss for one in part]))) for part in parts]


def _numbers(found: Comparison) -> str:
    head = "".join(f"<th>{name}</th>" for name in HEADER)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows(found))
    return f"<table><tr>{head}</tr>{body}</table>"


def _told(kind: str, one: Run) -> str:
    facts = {"read from": one.kind, "NCA tokens": f"{one.nca_tokens:,}", "plan": one.plan or "text alone", **one.facts}
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd><code>{html.escape(value)}</code></dd>" for name, value in facts.items())
    return f"<details><summary>{kind}: {html.escape(one.name)}</summary><dl>{rows}</dl></details>"
