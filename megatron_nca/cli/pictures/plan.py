"""The picture of a plan: each source's share of the samples, and the learning rate, over the run's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from megatron_nca.cli.common import pyplot
from megatron_nca.cli.pictures.looks import FAINT, INK, SERIES, STYLE, TEXT_COLOR, count, save
from megatron_nca.data.curriculum import TEXT, Plan

LEAST_WIDTH = 0.22
"""Least width of a phase, as a share of the picture: a short one is drawn wider, so that what happens in it can be read."""


def draw(plan: Plan, described: dict[str, Any], path: Path) -> None:
    """Draw a plan.

    Args:
        plan: The plan.
        described: The plan as ``plan --json`` prints it.
        path: PNG to write.
    """
    plt = pyplot()
    with plt.rc_context(STYLE):
        with_rate = described["learning_rate"] is not None
        figure, axes = plt.subplots(
            1 + with_rate, 1, sharex=True, squeeze=False, figsize=(9, 2.9 + 2.3 * with_rate), layout="constrained",
            height_ratios=[1.2, 1][: 1 + with_rate],
        )  # fmt: skip
        scale = StretchedAxis(
            [part["begin"] * plan.sequence_length for part in described["phases"]], plan.samples * plan.sequence_length
        )
        tokens = np.array([*described["positions"], plan.samples]) * plan.sequence_length
        places = scale.place(tokens)
        _draw_shares(axes[0, 0], plan, places, np.array(described["shares"]))
        if with_rate:
            _draw_rates(axes[1, 0], places[:-1], described)
        for place in axes[:, 0]:
            for edge in scale.drawn[1:-1]:
                place.axvline(edge, color=FAINT, linestyle=":", linewidth=1.1)
        ticks = scale.ticks()
        axes[-1, 0].set_xticks(scale.place(ticks), [count(tick) for tick in ticks])
        axes[-1, 0].set(
            xlabel="training tokens" + ("; each phase in a scale of its own" if scale.is_stretched else ""), xlim=(0, 1)
        )
        save(figure, path)
        plt.close(figure)


class StretchedAxis:
    """Token counts on an axis in which every phase has room: each is straight in itself, a short one wider than it is.

    Args:
        begins: Tokens at which the phases begin.
        end: Tokens of the run.
    """

    def __init__(self, begins: list[int], end: int) -> None:
        edges = [*dict.fromkeys(begins), end]
        lengths = np.maximum(np.diff(np.array(edges, dtype=np.float64)), 1)
        shares = lengths / lengths.sum()
        least = min(LEAST_WIDTH, 1 / len(shares))
        widths = np.maximum(shares, least)
        self.is_stretched = bool((widths > shares).any())
        self.edges = np.array(edges, dtype=np.float64)
        self.drawn = np.concatenate([[0.0], np.cumsum(widths / widths.sum())])

    def place(self, tokens: Any) -> Any:
        """Return where token counts lie, from 0 to 1."""
        return np.interp(np.asarray(tokens, dtype=np.float64), self.edges, self.drawn)

    def ticks(self) -> Any:
        """Return the token counts to write: each edge, and within a phase two more where there is room."""
        inner = [
            edge + (following - edge) * part / 3
            for edge, following, width in zip(self.edges, self.edges[1:], np.diff(self.drawn), strict=False)
            for part in ((1, 2) if width > 0.2 else ())
        ]
        return np.array(sorted([*self.edges, *inner]))


def _draw_rates(axes: Any, places: Any, described: dict[str, Any]) -> None:
    highest = 0.0
    for key, label, color in (("learning_rate", "layers", INK), ("embedding_learning_rate", "embeddings", SERIES[1])):
        if described[key] is not None:
            axes.plot(places, described[key], color=color, linewidth=1.6, label=label)
            highest = max(highest, *described[key])
    axes.set(title="Learning rate", ylim=(0, 1.08 * max(highest, 1e-12)))
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
    if described["embedding_learning_rate"] is not None:
        axes.legend(fontsize=8.5)


def _draw_shares(axes: Any, plan: Plan, tokens: Any, shares: Any) -> None:
    names = [plan.source_name(source) for source in range(plan.schedule.sources)]
    names = [" + ".join(map(_short, plan.curriculum.text)) if name == TEXT else name for name in names]
    entries = len(plan.curriculum.entries)
    colors = [SERIES[place % len(SERIES)] if place < entries else TEXT_COLOR for place in range(len(names))]
    # A share holds over its whole window, so the areas are steps.
    steps = np.vstack([shares, shares[-1:]])
    axes.stackplot(tokens, steps.T, labels=names, colors=colors, step="post", linewidth=0)
    axes.set(title="Share of the samples", ylim=(0, 1))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.04), ncols=2, fontsize=8.5, handlelength=1, borderaxespad=0.2)


def _short(prefix: str) -> str:
    return Path(prefix).name
