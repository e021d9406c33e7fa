"""The picture of a plan: each source's share of the samples, and the learning rate, over the run's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from megatron_nca.cli.common import pyplot
from megatron_nca.cli.pictures.looks import FAINT, INK, SERIES, STYLE, TEXT_COLOR, count, save
from megatron_nca.data.curriculum import TEXT, Plan


def draw(plan: Plan, described: dict[str, Any], path: Path) -> None:
    """Draw a plan.

    Args:
        plan: The plan.
        described: As ``plan --json`` prints it.
        path: PNG to write.
    """
    plt = pyplot()
    with plt.rc_context(STYLE):
        with_rate = described["learning_rate"] is not None
        figure, axes = plt.subplots(
            1 + with_rate, 1, sharex=True, squeeze=False, figsize=(9, 2.9 + 2.3 * with_rate), layout="constrained",
            height_ratios=[1.2, 1][: 1 + with_rate],
        )  # fmt: skip
        tokens = np.array([*described["positions"], plan.samples]) * plan.sequence_length
        _draw_shares(axes[0, 0], plan, tokens, np.array(described["shares"]))
        if with_rate:
            rates = np.array(described["learning_rate"])
            axes[1, 0].plot(tokens[:-1], rates, color=INK, linewidth=1.6)
            axes[1, 0].set(title="Learning rate", ylim=(0, 1.08 * max(rates.max(), 1e-12)))
            axes[1, 0].yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
        for place in axes[:, 0]:
            _mark_phases(place, plan)
        axes[-1, 0].set(xlabel="training tokens", xlim=(0, tokens[-1]))
        axes[-1, 0].xaxis.set_major_formatter(lambda number, _: count(number))
        save(figure, path)
        plt.close(figure)


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


def _mark_phases(axes: Any, plan: Plan) -> None:
    for phase in plan.phases:
        if phase.end < plan.samples:
            axes.axvline(phase.end * plan.sequence_length, color=FAINT, linestyle=":", linewidth=1.1)


def _short(prefix: str) -> str:
    return Path(prefix).name
