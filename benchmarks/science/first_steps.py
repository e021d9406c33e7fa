"""What the first steps of NCA look like: `python -m benchmarks.science.first_steps`, a Markdown table.

The quickstart's model learns the quickstart's automaton and the paper's. Results are kept beside those of the arms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.science.table import RESULTS
from examples.quickstart.text import prepare, standard_library
from examples.quickstart.train import BATCH, Job, bf16_pays, train, write_json

STEPS = 300
SHOWN = (100, 300)
SETTINGS: dict[str, dict[str, Any]] = {
    "quickstart": {"entry": "nca:grid=4,colors=4,burn_in=200,gzip=0.3-0.8", "sequence": 256, "vocabulary": 512},
    "paper": {"entry": "nca:grid=12", "sequence": 1024, "vocabulary": 10_240},
}


def main() -> None:
    """Make what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.science.first_steps", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("out/science"), help="folder of unfinished runs (default: %(default)s)"
    )
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="these alone")
    args = parser.parse_args()
    missing = [name for name in args.settings if not path_of(name).exists()]
    # A process is Megatron's world of one rank, and can be so once.
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        pool.map(partial(run, work=args.work), missing, chunksize=1)
    print("\n".join(lines()))


def path_of(name: str) -> Path:
    """Return where a setting's result is kept."""
    return RESULTS / "first-steps" / f"{name}.json"


def run(name: str, work: Path) -> None:
    """Train on a setting's automaton, and one step of text behind it."""
    setting = SETTINGS[name]
    text, tokenizer = prepare(work / "text", standard_library(), setting["vocabulary"])
    step = BATCH * setting["sequence"]
    entry = f"{setting['entry']},tokens={STEPS * step}"
    job = Job(name, text, str(tokenizer), entry, text_tokens=step, bf16=bf16_pays(), shape={"sequence": setting["sequence"]})
    folder = work / f"first-steps-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    result = train(job, folder)
    kept = {key: value for key, value in result["job"].items() if key not in ("text", "tokenizer", "name")}
    path_of(name).parent.mkdir(exist_ok=True)
    write_json(path_of(name), {"job": kept, "steps": result["steps"][:STEPS], "nca": result["nca"]})


def lines() -> Iterator[str]:
    """Yield the table of what there is: losses and cell accuracy on rules that were held out."""
    after = " | ".join(f"{name} after {step}" for name in ("loss", "cell accuracy") for step in SHOWN)
    yield f"| automaton of | tokens a step | loss at once | {after} |"
    yield "|---|---:|---:|" + "---:|" * 2 * len(SHOWN)
    for name in SETTINGS:
        if path_of(name).exists():
            result = json.loads(path_of(name).read_text(encoding="utf-8"))
            seen = {one["step"]: one for one in result["nca"]}
            cells = [f"{seen[step][f'nca/valid-{key}']:.2f}" for key in ("loss", "cell-accuracy") for step in SHOWN]
            tokens = BATCH * result["job"]["shape"]["sequence"]
            yield f"| the {name} | {tokens:,} | {result['steps'][0]:.2f} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
