"""`python -m examples.quickstart`: text alone and NCA first, both at once on a core each, then the picture and what it says."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from examples.quickstart import report
from examples.quickstart.text import prepare, standard_library
from examples.quickstart.train import Job, bf16_pays, write_json
from megatron_nca.data.band import check_band
from megatron_nca.data.domain import read_entry
from megatron_nca.errors import NCAError

ENTRY = "nca:tokens=1M,grid=4,colors=4,burn_in=200,gzip=0.3-0.8"
BASELINE, WITH_NCA = "text-only", "nca-first"
SECONDS_BETWEEN_LINES = 20


def main() -> int:
    """Train both runs, or go on with them, and report; return the exit code."""
    args = read_arguments()
    try:
        entry = read_entry(args.nca)
        if not entry.is_phase:
            raise NCAError(f"--nca {args.nca}: give it tokens=, as in {ENTRY}")
        check_band(entry)
        jobs = write_jobs(args)
    except NCAError as error:
        print(f"quickstart: error: {error}", file=sys.stderr)
        return 2
    code = train_both(jobs)
    if code == 0:
        report.report(args.out, *(args.out / name for name in jobs))
    return code


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.quickstart", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("out/quickstart"), help="folder of everything (default: %(default)s)")
    parser.add_argument("--nca", default=ENTRY, metavar="ENTRY", help="what the second run begins with (default: %(default)s)")
    for name in ("seed", "text_tokens", "validate_every", "lr", "embedding_lr", "nca_lr", "nca_embedding_lr"):
        kept = getattr(Job, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(kept), default=kept, help="(default: %(default)s)")
    parser.add_argument("--documents", type=int, help="of the text, so many alone (default: all)")
    parser.add_argument("--shape", type=json.loads, default={}, metavar="JSON", help="of the model, where it is to be another")
    return parser.parse_args()


def write_jobs(args: argparse.Namespace) -> dict[str, Path]:
    """Prepare the text and write what each run is to do; refuse a folder that holds other runs."""
    text, tokenizer = prepare(args.out / "text", standard_library()[: args.documents])
    given = {name: value for name, value in vars(args).items() if name not in ("out", "nca", "documents")}
    baseline = Job(BASELINE, text, str(tokenizer), bf16=bf16_pays(), **given)
    jobs = {}
    for job in (baseline, replace(baseline, name=WITH_NCA, first=args.nca)):
        jobs[job.name] = args.out / job.name / "job.json"
        jobs[job.name].parent.mkdir(parents=True, exist_ok=True)
        if jobs[job.name].exists():
            begun = json.loads(jobs[job.name].read_text(encoding="utf-8"))
            # A run goes on in the precision that it began in, on another machine too.
            job = replace(job, bf16=begun.get("bf16"))
            if begun != asdict(job):
                raise NCAError(f"{args.out} holds runs of other settings; give --out another folder")
        write_json(jobs[job.name], asdict(job))
    return jobs


def train_both(jobs: dict[str, Path]) -> int:
    """Run each job in a process of its own, tell how far they are, and return the first exit code that is not 0."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "examples.quickstart.train"]
    logs = {name: open(path.parent / "log.txt", "w", encoding="utf-8") for name, path in jobs.items()}  # noqa: SIM115
    runs = {
        name: subprocess.Popen([*words, str(path), str(path.parent)], env=environment, stdout=logs[name], stderr=logs[name])
        for name, path in jobs.items()
    }
    printed = 0.0
    try:
        while any(run.poll() is None for run in runs.values()) and not any(run.poll() for run in runs.values()):
            if time.monotonic() - printed > SECONDS_BETWEEN_LINES:
                print(" | ".join(progress(path.parent / "result.json", name) for name, path in jobs.items()), flush=True)
                printed = time.monotonic()
            time.sleep(0.5)
    finally:
        for run in runs.values():
            if run.poll() is None:
                run.terminate()
                run.wait()
    for name, run in runs.items():
        if run.returncode:
            print(f"quickstart: error: {name} ended with exit code {run.returncode}; see {jobs[name].parent / 'log.txt'}")
    return int(any(run.returncode for run in runs.values()))


def progress(path: Path, name: str) -> str:
    """Tell in a few words how far a run is."""
    if not path.exists():
        return f"{name}: begins"
    found = json.loads(path.read_text(encoding="utf-8"))
    step, first, loss = found["step"], found["first"], found["steps"][-1]
    phase = f"NCA {step:,} of {first:,}" if step < first else f"text {step - first:,} of {found['of'] - first:,}"
    return f"{name}: step {phase}, loss {loss:.3f}"


if __name__ == "__main__":
    sys.exit(main())
