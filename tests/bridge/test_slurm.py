"""The batch script for Megatron-Bridge on a two-node cluster: a rank that dies, a time limit, the same losses in the end."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("megatron") is None or importlib.util.find_spec("megatron.bridge") is None:
    pytest.skip("needs Megatron-Bridge; make test-bridge brings it", allow_module_level=True)

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "examples/slurm/megatron_bridge.sbatch"
STEPS, SWITCH = 24, 10

# What each attempt's training script is told beyond what the batch script gives it.
PYTHON = """\
#!/bin/bash
[[ "$*" == *--fingerprint* ]] && exec {python} "$@"
case "${{SLURM_RESTART_COUNT:-0}}" in
    0) exec {python} "$@" {first} ;;
    1) exec {python} "$@" {second} ;;
esac
exec {python} "$@"
"""


class Job:
    """A run of the tiny model under the batch script."""

    def __init__(self, cluster, corpus, folder, first="", second="", minutes=20, margin=2, options=()):
        python = folder / "python"
        python.write_text(PYTHON.format(python=sys.executable, first=first, second=second))
        python.chmod(0o755)
        log = folder / "job.log"
        environment = {
            "TEXT": str(corpus), "RUN": str(folder / "run"), "SCRIPT": str(PROJECT / "tests/bridge/tiny_pretrain.py"),
            "PYTHON": str(python), "GPUS_PER_NODE": "1", "MARGIN": str(margin), "HEAD_ADDRESS": "127.0.0.1",
            "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PATH": os.environ["PATH"],
        }  # fmt: skip
        job = cluster(
            "sbatch", "--parsable", f"--time={minutes}", f"--output={log}", f"--job-name={folder.name}", f"--chdir={folder}",
            *options, str(SCRIPT), environment=environment,
        )  # fmt: skip
        state = cluster.wait_for_end(job.strip(), 400)
        self.text = log.read_text()
        assert state == "COMPLETED", self.text[-4000:]
        self.attempts = self.text.split("attempt ")[1:]

    def losses(self):
        """Return every step's loss and learning rate, and the first step of each attempt."""
        seen, first = {}, []
        for attempt in self.attempts:
            rows = re.findall(r"LOSS (\d+) (\S+) (\S+)", attempt)
            first.append(int(rows[0][0]))
            for step, *values in rows:
                assert seen.setdefault(int(step), values) == values, step
        return seen, first


@pytest.fixture(scope="module")
def whole(cluster, corpus, tmp_path_factory):
    return Job(cluster, corpus, tmp_path_factory.mktemp("whole"))


def test_a_job_runs_on_both_nodes_from_nca_to_text(whole):
    losses, first = whole.losses()
    assert first == [1]
    assert sorted(losses) == list(range(1, STEPS + 1))
    assert "0 on n[1-2]" in whole.text
    assert whole.text.count("megatron-nca: switch to text after 80 samples") == 1
    assert whole.text.splitlines()[-1] == "complete"


def test_a_rank_that_dies_twice_costs_no_loss(whole, cluster, corpus, tmp_path):
    job = Job(cluster, corpus, tmp_path, "--die-after 7", "--die-after 13")
    losses, first = job.losses()
    assert first == [1, 6, SWITCH + 1]
    assert losses == whole.losses()[0]


def test_out_of_time_it_saves_and_goes_on_with_the_same_losses(whole, cluster, corpus, tmp_path):
    """Bridge ends two minutes after the start, two before the limit, at a step that no interval would have saved."""
    # SLURM's own signal comes later than in the script, whose two minutes would be half of this limit.
    signal = ["--signal=B:USR1@10"]
    job = Job(cluster, corpus, tmp_path, "--sleep-after 7 121", minutes=4, margin=2, options=signal)
    assert "queued again: saved before the time limit" in job.attempts[0]
    losses, first = job.losses()
    assert first[:2] == [1, 8]
    assert losses == whole.losses()[0]
