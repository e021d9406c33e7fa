"""The results in a table: each arm against the one it is compared with, seed by seed, with standard errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.science.arms import Arm, arms
from examples.quickstart.report import SEEDS, tokens_at

RESULTS = Path(__file__).with_name("results")
COPIES = 1.6
"""A run has begun to copy if what can be copied costs it less at its end, in nats a token; one that has not ends near 1.77."""


def print_table() -> None:
    """Print what there is, and keep the seeds for the quickstart."""
    results = read_results()
    print("\n".join(lines(results)))
    if "nca" in results and "scratch" in results:
        print("\n" + "\n".join(along_the_text(results)))
        write_seeds(results)


def read_results(folder: Path = RESULTS) -> dict[str, dict[int, Any]]:
    """Return results by arm and seed."""
    found: dict[str, dict[int, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(one["arm"], {})[one["job"]["seed"]] = one
    return found


def lines(results: dict[str, dict[int, Any]]) -> Iterator[str]:
    """Yield a Markdown table: end losses, and the difference to the same seeds of the other arm."""
    yield "| arm | seeds | copy | loss at the end | against | difference, % | where it can copy, % | text to the same loss, M |"
    yield "|---|---:|---:|---:|---|---:|---:|---:|"
    for arm in arms():
        if arm.name in results:
            yield "| " + " | ".join(_cells(arm, results)) + " |"


def _cells(arm: Arm, results: dict[str, dict[int, Any]]) -> list[str]:
    own = results[arm.name]
    ends = [one["validations"][-1]["loss"] for one in own.values()]
    copying = sum(_end(one, "copyable") < COPIES for one in own.values())
    cells = [arm.says, str(len(own)), str(copying), mean_and_error(ends, 3)]
    other = results.get(arm.against or "", {})
    seeds = [seed for seed in own if seed in other]
    if not seeds:
        return [*cells, "", "", "", ""]
    differences, copied = (
        [100 * (_end(own[seed], key) / _end(other[seed], key) - 1) for seed in seeds] for key in ("loss", "copyable")
    )
    reached = [tokens_at(own[seed]["validations"], _end(other[seed], "loss")) for seed in seeds]
    reached_at = ", ".join("never" if tokens is None else f"{tokens / 1e6:.2f}" for tokens in reached)
    against = next(one.says for one in arms() if one.name == arm.against)
    return [*cells, against, mean_and_error(differences, 1), mean_and_error(copied, 1), reached_at]


def along_the_text(results: dict[str, dict[int, Any]], arm: str = "nca", against: str = "scratch") -> Iterator[str]:
    """Yield a Markdown table: the difference in loss, seed by seed, at counts of text tokens."""
    seeds = [seed for seed in results.get(arm, {}) if seed in results.get(against, {})]
    yield "| text tokens | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean and standard error |"
    yield "|---:|" + "---:|" * (len(seeds) + 1)
    for place in range(len(results[against][seeds[0]]["validations"])):
        pairs = [(results[against][seed]["validations"][place], results[arm][seed]["validations"][place]) for seed in seeds]
        found = [100 * (other["loss"] / one["loss"] - 1) for one, other in pairs]
        cells = " | ".join(f"{value:+.1f}" for value in found)
        yield f"| {pairs[0][0]['tokens']:,} | {cells} | {mean_and_error(found, 1)} |"


def write_seeds(results: dict[str, dict[int, Any]], path: Path = SEEDS) -> None:
    """Write what the quickstart lays one run beside: validations of every seed that has both runs."""
    arms_there = {"text-only": results.get("scratch", {}), "nca-first": results.get("nca", {})}
    seeds = sorted(set(arms_there["text-only"]) & set(arms_there["nca-first"]))
    if seeds:
        setting = {key: value for key, value in arms_there["nca-first"][seeds[0]]["job"].items() if key not in ("seed", "bf16")}
        curves = [{name: found[seed]["validations"] for name, found in arms_there.items()} for seed in seeds]
        path.write_text(json.dumps({"setting": setting, "seeds": curves}) + "\n", encoding="utf-8")


def mean_and_error(values: list[float], digits: int) -> str:
    """Write a mean and its standard error over seeds."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.{digits}f}"


def _end(result: dict[str, Any], key: str) -> float:
    return float(result["validations"][-1][key])


if __name__ == "__main__":
    print_table()
