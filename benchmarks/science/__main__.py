"""`python -m benchmarks.science`: make the results that are missing, then print the table and draw the picture."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.science.arms import OTHER, arms
from benchmarks.science.figure import draw
from benchmarks.science.table import RESULTS, print_table, read_results
from examples.quickstart.text import prepare, read_sources, standard_library
from examples.quickstart.train import Job, bf16_pays, write_json

PICTURE = Path("docs/images/evidence.png")
OTHER_TOKENS = 1.6e6
"""Characters of the other text to read at least twice as many, so that a million tokens are one pass."""


def main() -> int:
    """Run the queue; return 1 if a run failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.science", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("out/science"), help="folder of unfinished runs (default: %(default)s)"
    )
    names = [arm.name for arm in arms()]
    parser.add_argument("--arms", nargs="+", metavar="NAME", choices=names, help=f"these alone, of {', '.join(names)}")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these alone")
    parser.add_argument("--cores", type=int, default=2, help="runs at a time (default: %(default)s)")
    args = parser.parse_args()
    jobs = [job for job in missing(args)]
    print(f"{len(jobs)} runs to make", flush=True)
    # Left at the first Ctrl-C: what was finished is kept, and a run goes on from its checkpoint.
    with ThreadPoolExecutor(args.cores) as pool:
        codes = list(pool.map(lambda job: run(job, args.work), jobs))
    print_table()
    if not args.arms and not args.seeds and not any(codes):
        draw(read_results(), PICTURE)
    return int(any(codes))


def missing(args: argparse.Namespace) -> list[tuple[str, Job]]:
    """Return what has no result yet: (name of the result, run)."""
    text, tokenizer = prepare(args.work / "text", standard_library())
    found = []
    for arm in arms():
        for seed in arm.seeds:
            name = f"{arm.name}-{seed}"
            wanted = (not args.arms or arm.name in args.arms) and (not args.seeds or seed in args.seeds)
            if wanted and not (RESULTS / f"{name}.json").exists():
                changes: dict[str, Any] = dict(arm.changes)
                if OTHER in changes.get("first", ""):
                    changes["first"] = changes["first"].replace(OTHER, other_text(args.work, tokenizer))
                found.append((name, Job(arm.name, text, str(tokenizer), seed=seed, bf16=bf16_pays(), **changes)))
    return found


def other_text(work: Path, tokenizer: Path) -> str:
    """Write C++ headers, which come with torch, in the first text's tokenizer; return their prefix."""
    import torch

    headers = read_sources((Path(torch.__file__).parent / "include").rglob("*.h"))
    texts, characters = [], 0
    for text in headers:
        texts.append(text)
        characters += len(text)
        if characters > 2 * OTHER_TOKENS:
            break
    return prepare(work / "text", texts, tokenizer=tokenizer)[0]


def run(named: tuple[str, Job], work: Path) -> int:
    """Make one result in a process of its own."""
    name, job = named
    folder, description = work / name, work / f"{name}.json"
    write_json(description, asdict(job))
    if job.first.startswith("phase:"):
        shutil.rmtree(folder, ignore_errors=True)
    words = [sys.executable, "-m", "benchmarks.science.one", str(description), str(folder), str(RESULTS / f"{name}.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with open(work / f"{name}.log", "w", encoding="utf-8") as log:
        code = subprocess.run(words, env=environment, stdout=log, stderr=log, check=False).returncode
    print(f"{name}: " + ("done" if code == 0 else f"exit code {code}, see {work / name}.log"), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
