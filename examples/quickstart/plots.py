"""The pictures: loss curves of both runs, and the first trajectories that the NCA run trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.quickstart.course import NCA
from examples.quickstart.files import replacing
from examples.quickstart.results import Comparison, Curve
from examples.quickstart.settings import Settings
from megatron_nca import NCASource
from megatron_nca.automaton.tokens import frames_for

INK, FAINT = "#22272e", "#8b949e"
BASELINE_COLOR, NCA_COLOR, PHASE_COLOR = "#6e7781", "#c2410c", "#fff1e0"
STYLE = {
    "figure.facecolor": "white",
    "axes.edgecolor": "#d0d7de",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eaeef2",
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9.5,
    "legend.frameon": False,
}
CELL_COLORS = (
    "#16324f", "#f4b942", "#d1495b", "#3c91a8", "#f2efe6", "#66a182", "#8d5a97", "#e07a5f", "#a3c4bc", "#2e2e2e",
)  # fmt: skip
TRAJECTORIES, FRAMES = 6, 12
SMOOTHING = 9
"""Steps whose mean is drawn as the training loss; single steps stand faintly behind it."""


def plot_curves(comparison: Comparison, path: Path) -> None:
    """Draw validation loss over text tokens, training loss over all tokens, and the difference of the two runs.

    Args:
        comparison: Both runs.
        path: PNG to write.
    """
    plt = _pyplot()
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 6.2), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
        _draw_validation(left.subplots(), comparison)
        top, bottom = right.subplots(2, 1)
        _draw_training(top, comparison)
        _draw_change(bottom, comparison)
        _save(figure, path)


def plot_trajectories(settings: Settings, path: Path) -> None:
    """Draw the first frames of the first trajectories, a rule a row.

    Args:
        settings: Give the entry and the seed.
        path: PNG to write.
    """
    plt = _pyplot()
    entry = settings.parsed_entry
    seed = settings.seed if entry.seed is None else entry.seed
    frames = min(FRAMES, frames_for(entry.config, settings.sequence_length))
    source = NCASource(entry.config, seed, "train", entry.rules)
    grids = source.grids_batch(range(TRAJECTORIES), frames)
    with plt.rc_context(STYLE):
        size = (0.9 * frames, 0.95 * TRAJECTORIES + 0.7)
        figure, axes = plt.subplots(TRAJECTORIES, frames, figsize=size, layout="constrained")
        _draw_grids(axes, grids, entry.config.colors)
        title = f"Six rules, a row each: the first {frames} frames of the first training sequences\n{entry.text}"
        figure.suptitle(title, color=INK, fontsize=10)
        _save(figure, path)


def _draw_validation(axes: Any, comparison: Comparison) -> None:
    for curve, color, label in _curves(comparison):
        tokens = [entry["text_tokens"] for entry in curve.validations]
        losses = [entry["loss"] for entry in curve.validations]
        axes.plot(tokens, losses, color=color, marker="o", markersize=4, linewidth=2, label=label)
    axes.axvline(0, color=NCA_COLOR, linestyle=":", linewidth=1.5)
    axes.annotate(
        "switch from NCA", (0, 1), xycoords=("data", "axes fraction"), xytext=(5, -4), textcoords="offset points",
        color=NCA_COLOR, va="top",
    )  # fmt: skip
    _mark_match(axes, comparison)
    axes.set(title="Validation loss, held-out standard library", xlabel="text tokens", ylabel="nats / token")
    axes.legend(loc="upper right")
    _count_tokens(axes)


def _mark_match(axes: Any, comparison: Comparison) -> None:
    """Mark where the NCA run reached the baseline's final loss."""
    tokens, loss = comparison.text_tokens_to_match, comparison.baseline.final_loss
    if tokens is None:
        return
    axes.hlines(loss, tokens, comparison.text_tokens, color=FAINT, linestyle="--", linewidth=1)
    saving = comparison.text_tokens / tokens
    middle = (tokens + comparison.text_tokens) / 2
    axes.annotate(f"{saving:.2f}x less text", (middle, loss), xytext=(0, 5), textcoords="offset points", ha="center", color=INK)


def _draw_training(axes: Any, comparison: Comparison) -> None:
    nca_tokens = comparison.nca_tokens
    axes.axvspan(0, nca_tokens, color=PHASE_COLOR, linewidth=0)
    axes.axvline(nca_tokens, color=NCA_COLOR, linestyle=":", linewidth=1.5)
    for curve, color, label in _curves(comparison):
        begin = nca_tokens if curve is comparison.baseline else 0
        tokens = begin + np.cumsum([entry["tokens"] for entry in curve.steps])
        phases = [entry["source"] == NCA for entry in curve.steps]
        losses = np.array([entry["loss"] for entry in curve.steps])
        axes.plot(tokens, losses, color=color, alpha=0.18, linewidth=0.8)
        # Smoothed phase by phase: a mean across the switch would be of two different things.
        for phase in (True, False):
            chosen = np.array(phases) == phase
            axes.plot(tokens[chosen], _smooth(losses[chosen]), color=color, linewidth=1.6, label=None if phase else label)
    axes.annotate("NCA", (nca_tokens / 2, 0.04), xycoords=("data", "axes fraction"), ha="center", color=NCA_COLOR)
    axes.set(title="Training loss; the baseline starts at the switch", xlabel="tokens, NCA included", ylabel="nats / token")
    _count_tokens(axes)


def _draw_change(axes: Any, comparison: Comparison) -> None:
    rows = comparison.rows
    tokens, changes = [row.text_tokens for row in rows], [100 * row.loss_change for row in rows]
    width = 0.7 * tokens[0]
    axes.bar(tokens, changes, width=width, color=[NCA_COLOR if change < 0 else BASELINE_COLOR for change in changes])
    axes.axhline(0, color=INK, linewidth=0.8)
    for place, change in zip(tokens, changes, strict=True):
        offset, align = (3, "bottom") if change >= 0 else (-3, "top")
        axes.annotate(
            f"{change:+.1f}", (place, change), xytext=(0, offset), textcoords="offset points", ha="center", va=align, fontsize=8
        )
    axes.margins(y=0.2)
    axes.set(title="NCA first against text only: change of validation loss", xlabel="text tokens", ylabel="percent")
    _count_tokens(axes)


def _draw_grids(axes: Any, grids: npt.NDArray[np.uint8], colors: int) -> None:
    palette = _palette(colors)
    for row, trajectory in zip(axes, grids, strict=True):
        for place, grid in zip(row, trajectory, strict=True):
            place.imshow(palette[grid], interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.grid(False)
            place.spines[:].set_visible(False)
    for number, place in enumerate(axes[0]):
        place.set_title(str(number), loc="center", fontsize=8, fontweight="normal", color=FAINT)


def _palette(colors: int) -> npt.NDArray[np.float64]:
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    if colors <= len(CELL_COLORS):
        return np.array([to_rgb(color) for color in CELL_COLORS[:colors]])
    return np.asarray(colormaps["turbo"](np.linspace(0, 1, colors)))[:, :3]


def _curves(comparison: Comparison) -> list[tuple[Curve, str, str]]:
    return [(comparison.baseline, BASELINE_COLOR, "text only"), (comparison.with_nca, NCA_COLOR, "NCA first")]


def _smooth(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the running mean, over fewer steps towards both ends."""
    reach = SMOOTHING // 2
    return np.array([losses[max(place - reach, 0) : place + reach + 1].mean() for place in range(len(losses))])


def _count_tokens(axes: Any) -> None:
    axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1e6:g}M" if tokens >= 1e6 else f"{tokens / 1e3:g}K")


def _save(figure: Any, path: Path) -> None:
    plt = _pyplot()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=160, format="png")
    plt.close(figure)


def _pyplot() -> Any:
    import matplotlib

    # No display is needed, nor looked for.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
