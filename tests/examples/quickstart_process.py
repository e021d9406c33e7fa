"""Starts the quickstart in a process of its own, with settings so small that a run takes seconds, and kills it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SWITCH_STEP, LAST_STEP, CHECKPOINT_EVERY = 11, 24, 5
STEP_TOKENS = 4 * 64
SETTINGS = (
    f"--entry nca:tokens={SWITCH_STEP * STEP_TOKENS},grid=4,colors=3,gzip=none --text-steps {LAST_STEP - SWITCH_STEP} "
    "--sequence-length 64 --global-batch 4 --layers 2 --hidden 32 --heads 2 --vocab-size 400 "
    f"--eval-every {4 * STEP_TOKENS} --eval-samples 4 --checkpoint-every {CHECKPOINT_EVERY}"
).split()
PATIENCE = 300


def command(out, ranks=1):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    return [sys.executable, *launcher, "-m", "examples.quickstart", *SETTINGS, "--out", str(out)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def finish(out, ranks=1, arguments=()):
    """Run to the end and return what was printed."""
    done = subprocess.run(
        [*command(out, ranks), *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def kill_when(out, reached):
    """Start, and kill without warning as soon as `reached()`; False if it ended before."""
    with open(out.parent / "killed.log", "w") as log:
        process = subprocess.Popen(command(out), cwd=ROOT, env=environment(), stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and not reached() and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL, (out.parent / "killed.log").read_text()


def copy_without_runs(out, to):
    """Copy settings and text, so that a run need not prepare them again."""
    return shutil.copytree(out, to, ignore=shutil.ignore_patterns("with-nca", "baseline", ".lock", "index-cache"))


def latest_step(out, run):
    path = out / run / "checkpoints" / "latest"
    return int(path.read_text().removeprefix("step-")) if path.exists() else 0


def written_steps(out, run):
    path = out / run / "steps.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def read_entries(out, run, journal):
    """What a run wrote, without how long it took."""
    lines = (out / run / f"{journal}.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]
