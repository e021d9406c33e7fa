"""The picture of a calibration: a panel a text, its ratios above those of random rules, the band between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megatron_nca.automaton.config import format_setting
from megatron_nca.cli.common import pyplot
from megatron_nca.cli.pictures.looks import ACCENT, ACCENT_TINT, FAINT, INK, STYLE, TEXT_COLOR, save

if TYPE_CHECKING:
    from megatron_nca.data.calibration import Match

BIN = 0.01


def draw(matches: Sequence[Match], path: Path) -> None:
    """Draw the histograms of texts and rules.

    Args:
        matches: A panel each.
        path: PNG to write.
    """
    plt = pyplot()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(matches), 1, sharex=True, squeeze=False, figsize=(8.4, 0.9 + 1.75 * len(matches)), layout="constrained"
        )
        for place, match in zip(axes[:, 0], matches, strict=True):
            _draw_panel(place, match)
        axes[0, 0].legend(loc="upper left", bbox_to_anchor=(0.05, 1), fontsize=8.5)
        greatest = max(max(match.text.ratios.max(), match.rules.max()) for match in matches)
        axes[-1, 0].set(xlabel="gzip ratio", xlim=(0, max(0.7, greatest + 0.05)))
        save(figure, path)
        plt.close(figure)


def _draw_panel(axes: Any, match: Match) -> None:
    edges = np.arange(0, 1 + BIN, BIN)
    text, rules = (np.histogram(ratios, edges)[0] / len(ratios) for ratios in (match.text.ratios, match.rules))
    axes.axvspan(*match.text.band, color=ACCENT_TINT, linewidth=0)
    axes.stairs(rules, edges, fill=True, color=TEXT_COLOR, label="random rules")
    axes.stairs(text, edges, fill=True, color=ACCENT, alpha=0.85, label="windows of the text")
    axes.stairs(rules, edges, color=FAINT, linewidth=0.9)
    # One panel's dead rules, all at one ratio, would press everything else flat.
    axes.set(ylim=(0, 1.15 * text.max()), title=Path(match.text.prefix).name)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    label = f"band {format_setting(match.text.band)}; {match.acceptance:.1%} of random rules"
    axes.annotate(
        label, (1, 1), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", ha="right", va="bottom",
        color=INK if match.good else FAINT, fontsize=9,
    )  # fmt: skip
