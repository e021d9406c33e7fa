"""The results in a picture: `python -m benchmarks.science.figure FILE.png`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.science.arms import arms
from benchmarks.science.table import COPIES, read_results
from megatron_nca.cli.common import pyplot
from megatron_nca.cli.pictures.looks import ACCENT, FAINT, SERIES, STYLE, save

SHOWN = ("nca", "shuffled", "dyck", "other")
AGAINST = "scratch"


def draw(results: dict[str, dict[int, Any]], path: Path) -> None:
    """Draw the differences along the text, mean and standard error over seeds, and where each run's copying ended."""
    said = {arm.name: arm.says for arm in arms()}
    colors = dict(zip(SHOWN, (ACCENT, *SERIES[1:]), strict=False))
    plot = pyplot()
    with plot.rc_context(STYLE):
        figure, (along, copying) = plot.subplots(1, 2, figsize=(12.5, 4.2), width_ratios=(1.5, 1), layout="constrained")
        for name in SHOWN:
            tokens, mean, error = differences(results, name)
            along.plot(tokens, mean, color=colors[name], label=said[name])
            along.fill_between(tokens, mean - error, mean + error, color=colors[name], alpha=0.12)
        along.axhline(0, color=FAINT, linewidth=0.8)
        along.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1e6:g}M")
        along.set(
            title="Loss against text alone; bands: standard error of five seeds",
            xlabel="text tokens",
            ylabel="percent of the loss",
        )
        along.legend()
        rows = (AGAINST, *SHOWN)
        for row, name in enumerate(rows):
            ends = [one["validations"][-1]["copyable"] for one in results[name].values()]
            copying.plot(ends, [row] * len(ends), "o", color=colors.get(name, FAINT), alpha=0.75)
        copying.axvline(COPIES, color=FAINT, linewidth=0.8, linestyle=":")
        copying.set_yticks(range(len(rows)), [said[name] for name in rows])
        copying.invert_yaxis()
        copying.set(title="What can be copied, at the end", xlabel="nats a token, a dot a seed; left of the line a run copies")
        save(figure, path)
        plot.close(figure)


def differences(results: dict[str, dict[int, Any]], name: str) -> tuple[Any, Any, Any]:
    """Return text tokens, and the mean and standard error of the seeds' differences in per cent, each (validations,)."""
    seeds = sorted(set(results[name]) & set(results[AGAINST]))
    own, other = (
        np.array([[one["loss"] for one in results[arm][seed]["validations"]] for seed in seeds]) for arm in (name, AGAINST)
    )
    found = 100 * (own / other - 1)
    tokens = np.array([one["tokens"] for one in results[name][seeds[0]]["validations"]])
    return tokens, found.mean(0), found.std(0, ddof=1) / math.sqrt(len(seeds))


if __name__ == "__main__":
    draw(read_results(), Path(sys.argv[1]))
