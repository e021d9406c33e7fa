"""The picture of a calibration, three panels a text.

Its ratios lie above those of random rules, with the band between; below stand how often tokens occur and how often they come
back, of the text and of NCA of that band.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megatron_nca.automaton.config import format_setting
from megatron_nca.cli.common import pyplot
from megatron_nca.cli.pictures.looks import ACCENT, ACCENT_TINT, FAINT, INK, SERIES, STYLE, TEXT_COLOR, save

if TYPE_CHECKING:
    from megatron_nca.data.calibration import Match
    from megatron_nca.data.sequence_statistics import SequenceStatistics

BIN = 0.01


def draw(matches: Sequence[Match], path: Path) -> None:
    """Draw histograms, frequencies and autocorrelations of texts and NCA.

    Args:
        matches: Three panels each.
        path: PNG to write.
    """
    plt = pyplot()
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(8.4, 0.6 + 4.1 * len(matches)), layout="constrained")
        greatest = max(max(match.text.ratios.max(), match.rules.max()) for match in matches)
        parts = figure.subfigures(len(matches), 1, squeeze=False)[:, 0]
        for part, match in zip(parts, matches, strict=True):
            places = part.subplot_mosaic([["ratios", "ratios"], ["frequency", "autocorrelation"]], height_ratios=(1, 1.15))
            _draw_panel(places["ratios"], match)
            places["ratios"].set(xlabel="gzip ratio", xlim=(0, max(0.7, greatest + 0.05)))
            places["ratios"].legend(loc="upper left", bbox_to_anchor=(0.05, 1), fontsize=8.5)
            _draw_frequency(places["frequency"], match)
            _draw_autocorrelation(places["autocorrelation"], match)
        save(figure, path)
        plt.close(figure)


def _draw_frequency(axes: Any, match: Match) -> None:
    for statistics, color, name in _sides(match):
        used = np.flatnonzero(statistics.frequency)
        axes.loglog(
            used + 1, statistics.frequency[used], color=color, linewidth=1.6, label=f"{name}: {statistics.entropy:.1f} bits"
        )
    axes.set(title="how often a token occurs", xlabel="rank within a sequence", ylabel="share")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.xaxis.set_major_formatter(lambda rank, _: f"{rank:g}")
    axes.legend(loc="lower left", fontsize=8.5)


def _draw_autocorrelation(axes: Any, match: Match) -> None:
    for statistics, color, name in _sides(match):
        found = statistics.autocorrelation
        label = f"{name}: {statistics.change:.0%} change over a frame"
        axes.plot(np.arange(1, len(found) + 1), found, color=color, linewidth=1.6, label=label)
    axes.set(title="how often it comes back", xlabel="distance, tokens", ylabel="equal, beyond chance")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    least, greatest = axes.get_ylim()
    # Room for the legend above the curves.
    axes.set_ylim(least, greatest + 0.35 * (greatest - least))
    axes.legend(loc="upper right", fontsize=8.5)


def _sides(match: Match) -> tuple[tuple[SequenceStatistics, str, str], ...]:
    name = "NCA of the band" if match.good else "NCA of random rules"
    return (match.text_statistics, ACCENT, "text"), (match.nca_statistics, SERIES[1], name)


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
