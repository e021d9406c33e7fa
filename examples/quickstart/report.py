"""What came out: a picture and a closing table, which call nothing a gain that lies within the spread of seeds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from megatron_nca import NCASource
from megatron_nca.atomic_files import atomic_write
from megatron_nca.cli.common import pyplot
from megatron_nca.cli.pictures.looks import ACCENT, FAINT, INK, STYLE, cell_palette, save
from megatron_nca.data.domain import read_entry

SEEDS = Path(__file__).with_name("seeds.json")
"""Validations of several seeds of the setting as shipped, both runs: what one run is seen against."""
GREY, ORANGE = FAINT, ACCENT
RUNS = {"text-only": ("text only", GREY), "nca-first": ("NCA first", ORANGE)}


def report(out: Path, baseline: Path, with_nca: Path) -> None:
    """Print the table of two runs' folders, and write `report.png` and `report.json` into a third."""
    runs = [json.loads((folder / "result.json").read_text(encoding="utf-8")) for folder in (baseline, with_nca)]
    seeds = fitting_seeds(runs[1]["job"])
    draw(runs, seeds, out / "report.png")
    found = compare(runs, seeds)
    with atomic_write(out / "report.json") as partial:
        partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print("\n" + "\n".join(lines(found)) + f"\n\n{out}: report.png, report.json")


def fitting_seeds(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the stored seeds, where the job has their setting."""
    if not SEEDS.exists():
        return []
    stored = json.loads(SEEDS.read_text(encoding="utf-8"))
    return list(stored["seeds"]) if all(job[key] == value for key, value in stored["setting"].items()) else []


def compare(runs: list[dict[str, Any]], seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Lay two runs side by side: losses, their difference, the text that reaches the baseline's end, the seeds' spread."""
    baseline, with_nca = (run["validations"] for run in runs)
    pairs = zip(baseline, with_nca, strict=True)
    rows = [{"tokens": one["tokens"], "text-only": one["loss"], "nca-first": other["loss"]} for one, other in pairs]
    differences = [100 * (seed["nca-first"][-1]["loss"] / seed["text-only"][-1]["loss"] - 1) for seed in seeds]
    return {
        "setting": runs[1]["job"],
        "rows": rows,
        "copyable": [run["validations"][-1]["copyable"] for run in runs],
        "other": [run["validations"][-1]["other"] for run in runs],
        "text_to_match": tokens_at(with_nca, baseline[-1]["loss"]),
        "nca_tokens": runs[1]["first"] * runs[1]["step_tokens"],
        "cell_accuracy": [one.get("nca/valid-cell-accuracy") for one in runs[1]["nca"]],
        "seconds": [run["seconds"] for run in runs],
        "stored_differences_percent": differences,
    }


def tokens_at(validations: list[dict[str, Any]], loss: float) -> float | None:
    """Return the text tokens at which a run first reached a loss, between two validations by a straight line."""
    for before, one in zip([validations[0], *validations], validations, strict=False):
        if one["loss"] <= loss:
            drop = before["loss"] - one["loss"]
            share = (before["loss"] - loss) / drop if drop > 0 else 1.0
            return float(before["tokens"] + share * (one["tokens"] - before["tokens"]))
    return None


def lines(found: dict[str, Any]) -> list[str]:
    """Return the closing table and what it means."""
    table = [f"{'text tokens':>12}  {'text only':>10}  {'NCA first':>10}  {'difference':>10}"]
    for row in found["rows"]:
        change = row["nca-first"] / row["text-only"] - 1
        table.append(f"{row['tokens']:>12,}  {row['text-only']:>10.4f}  {row['nca-first']:>10.4f}  {change:>+10.1%}")
    accuracy = [value for value in found["cell_accuracy"] if value is not None]
    if accuracy:
        table += [
            "",
            f"NCA learned: {accuracy[-1]:.0%} of the next frame's cells, under rules never seen, are predicted rightly",
        ]
    names = ("what the context lets one copy", "everything else")
    for name, (one, other) in zip(names, (found["copyable"], found["other"]), strict=True):
        table.append(f"loss at the end on {name}: {one:.3f} on text only, {other:.3f} with NCA first")
    return [*table, "", verdict(found)]


def verdict(found: dict[str, Any]) -> str:
    """Say what one run can say: the difference, and whether it is larger than what another seed changes."""
    row, stored = found["rows"][-1], found["stored_differences_percent"]
    change = 100 * (row["nca-first"] / row["text-only"] - 1)
    if len(stored) < 2:
        return f"At the end NCA first differs by {change:+.1f} % in loss. One seed of this setting: it may be chance."
    mean, spread = float(np.mean(stored)), float(np.std(stored, ddof=1))
    band = f"{len(stored)} stored seeds of this setting gave {mean:+.1f} % on average, {spread:.1f} % apart"
    if abs(mean) <= 2 * spread / math.sqrt(len(stored)) or abs(change) <= spread or change * mean <= 0:
        return f"At the end NCA first differs by {change:+.1f} % in loss, which is within the spread of seeds: {band}."
    word = "lower" if change < 0 else "HIGHER: NCA did not help"
    text = f"At the end its loss is {abs(change):.1f} % {word}; {band}."
    if change < 0 and found["text_to_match"]:
        text += (
            f"\nIt reached the end of text only after {found['text_to_match']:,.0f} tokens of text and "
            f"{found['nca_tokens']:,} of NCA, instead of {row['tokens']:,} of text."
        )
    return text


def draw(runs: list[dict[str, Any]], seeds: list[dict[str, Any]], path: Path) -> None:
    """Draw loss, difference, copying, cell accuracy and trajectories, in one picture."""
    plot = pyplot()
    with plot.rc_context(STYLE):
        figure = plot.figure(figsize=(12.5, 7.6), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
        loss, difference = top.subplots(1, 2)
        copying, cells, rules = bottom.subplots(1, 3)
        _draw_losses(loss, copying, runs, seeds)
        _draw_difference(difference, runs, seeds)
        _draw_accuracy(cells, runs[1])
        _draw_trajectories(rules, runs[1]["job"])
        for axes in (loss, difference, copying):
            axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1e6:g}M")
            axes.set_xlabel("text tokens")
        save(figure, path)
        plot.close(figure)


def _draw_losses(axes: Any, copying: Any, runs: list[dict[str, Any]], seeds: list[dict[str, Any]]) -> None:
    for run, (name, (label, color)) in zip(runs, RUNS.items(), strict=True):
        if seeds:
            stored = np.array([series(seed[name], "loss")[1] for seed in seeds])
            axes.fill_between(series(seeds[0][name], "tokens")[0], stored.min(0), stored.max(0), color=color, alpha=0.15)
        axes.plot(*series(run["validations"], "loss"), color=color, marker="o", markersize=3, label=label)
        copying.plot(*series(run["validations"], "copyable"), color=color, label=f"{label}: copyable")
        copying.plot(*series(run["validations"], "other"), color=color, linestyle=":", label=f"{label}: other")
    axes.set(title="Loss on held-out text" + (f"; bands: {len(seeds)} stored seeds" if seeds else ""), ylabel="nats a token")
    copying.set(title="What the context lets one copy, and the rest", ylabel="nats a token")
    axes.legend()
    copying.legend(fontsize=7.5)


def _draw_difference(axes: Any, runs: list[dict[str, Any]], seeds: list[dict[str, Any]]) -> None:
    own = {name: run["validations"] for name, run in zip(RUNS, runs, strict=True)}
    drawn: list[tuple[dict[str, Any], dict[str, Any]]] = [(seed, {"alpha": 0.35, "linewidth": 1}) for seed in seeds]
    for curves, line in [*drawn, (own, {"marker": "o", "markersize": 3})]:
        (tokens, one), (_, other) = (series(curves[name], "loss") for name in RUNS)
        axes.plot(tokens, 100 * (np.array(other) / one - 1), color=ORANGE, **line)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(title="NCA first against text only" + ("; thin: stored seeds" if seeds else ""), ylabel="percent of the loss")


def _draw_accuracy(axes: Any, run: dict[str, Any]) -> None:
    last = run["nca"][-1] if run["nca"] else {}
    frames = {int(key.split("-after-")[1].split("-")[0]): value for key, value in last.items() if "-after-" in key}
    axes.plot(list(frames), list(frames.values()), color=ORANGE, marker="o", markersize=3)
    axes.set(title="Next cells of rules never seen", xlabel="frames seen before", ylabel="predicted rightly", ylim=(0, 1))


def _draw_trajectories(axes: Any, job: dict[str, Any]) -> None:
    axes.set_axis_off()
    if not job["first"].startswith("nca:"):
        return
    entry = read_entry(job["first"].split()[0])
    grids = NCASource(entry.config, job["seed"], "train", entry.rules).grids_batch(range(6), 12)
    framed = np.pad(cell_palette(entry.config.colors)[grids], ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    axes.imshow(np.concatenate([np.concatenate(list(row), 1) for row in framed], 0), interpolation="nearest")
    axes.set_title("Six of its rules, twelve frames each")


def series(validations: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return text tokens and a value of each validation."""
    return [one["tokens"] for one in validations], [one[name] for one in validations]
