"""The batch script of examples/slurm on a real two-node cluster: killed, queued again, and the same losses in the end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_nca.rehearsal.checkouts import compile_helpers, extension_suffix, find_checkouts
from megatron_nca.rehearsal.megatron_lm import CPU_FLAGS, TINY_GPT_FLAGS
from megatron_nca.rehearsal.training_log import parse_log
from tests.slurm.cluster import why_not

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "examples/slurm/megatron_lm.sbatch"
ENTRY = "nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64"
STEPS, SWITCH = 24, 10
PARTS = find_checkouts()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=f"a SLURM cluster {why_not()}"),
    pytest.mark.skipif(not PARTS, reason="needs a checkout of Megatron-LM: set MEGATRON_LM"),
]

# The first attempt stops to be killed in the NCA phase, the second behind the switch, each two steps after a checkpoint.
HOLDING_PYTHON = """\
#!/bin/bash
case "${{SLURM_RESTART_COUNT:-0}}" in
    0) export MEGATRON_NCA_HOLD_AT=7 ;;
    1) export MEGATRON_NCA_HOLD_AT=13 ;;
esac
exec {python} "$@"
"""


# The first attempt takes longer than its time limit allows.
SLOW_PYTHON = """\
#!/bin/bash
(( ${{SLURM_RESTART_COUNT:-0}} )) || export MEGATRON_NCA_HOLD_AT=7 MEGATRON_NCA_HOLD_SECONDS=121
exec {python} "$@"
"""


@pytest.fixture(scope="module")
def checkout():
    """The version that most launches use, or the only one there is."""
    chosen = next((part for part in PARTS if part.version[:2] == (0, 16)), PARTS[0])
    compile_helpers(chosen)
    return chosen


class Job:
    """One submission of the example script."""

    def __init__(
        self,
        cluster,
        checkout,
        corpus,
        folder,
        python=sys.executable,
        log="job.log",
        minutes=20,
        margin=2,
        options=(),
        entry=ENTRY,
    ):
        self.cluster, self.folder, self.log_path = cluster, folder, folder / log
        counted = 255 if checkout.version < (0, 18) else 256
        tokenizer = ("--tokenizer-type", "NullTokenizer", "--vocab-size", str(counted))
        flags = [*TINY_GPT_FLAGS, *CPU_FLAGS, *tokenizer, "--data-path", entry, str(corpus), "--train-iters", str(STEPS)]
        flags += ["--hidden-dropout", "0", "--attention-dropout", "0", "--save-interval", "5", "--ckpt-format", "torch_dist"]
        (folder / "run.args").write_text("# a tiny model\n" + "\n".join(flags) + "\n")
        environment = {
            "MEGATRON_LM": str(checkout.path),
            "RUN": str(folder / "run"),
            "ARGUMENTS": str(folder / "run.args"),
            "PYTHON": str(python),
            "LAUNCHER": "megatron_nca.rehearsal",
            "GPUS_PER_NODE": "1",
            "MARGIN": str(margin),
            "HEAD_ADDRESS": "127.0.0.1",
            "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "MAKEFLAGS": f"LIBEXT={extension_suffix()}",
        }
        words = ("--parsable", f"--time={minutes}", f"--output={self.log_path}", f"--chdir={folder}", *options)
        self.id = cluster("sbatch", f"--job-name={folder.name}", *words, str(SCRIPT), environment=environment).strip()

    def text(self):
        return self.log_path.read_text() if self.log_path.exists() else ""

    def attempts(self):
        return self.text().split("attempt ")[1:]

    def wait_for(self, attempt, iteration, timeout=240):
        deadline = time.monotonic() + timeout
        while len(self.attempts()) <= attempt or f"iteration {iteration:8d}/" not in self.attempts()[attempt]:
            assert time.monotonic() < deadline, f"attempt {attempt} does not reach {iteration}:\n{self.text()[-4000:]}"
            time.sleep(0.3)

    def end(self):
        state = self.cluster.wait_for_end(self.id, 300)
        assert state == "COMPLETED", self.text()[-4000:]
        return self


def losses(job):
    found = {}
    for text in job.attempts():
        for iteration, loss in parse_log(text, second_is_mean=True).losses.items():
            assert found.setdefault(iteration, loss) == loss, f"iteration {iteration} gave {found[iteration]}, then {loss}"
    return found


@pytest.fixture(scope="module")
def whole(cluster, checkout, corpus, tmp_path_factory):
    return Job(cluster, checkout, corpus, tmp_path_factory.mktemp("whole")).end()


def test_a_job_runs_on_both_nodes_from_nca_to_text(whole):
    assert len(whole.attempts()) == 1
    assert "0 on n[1-2]" in whole.text()
    assert "switch to text after 80 samples (5,120 tokens)" in whole.text()
    assert max(losses(whole)) == STEPS


def test_rank_0_alone_prints_the_plan(whole):
    assert whole.text().count("phases end after iterations 10") == 1


def test_the_step_is_started_after_the_preflight(whole):
    text = whole.text()
    assert 0 < text.index("every node makes the same tokens") < text.index("iteration        1/")


def test_killed_twice_and_queued_again_it_ends_with_the_same_losses(whole, cluster, checkout, corpus, tmp_path):
    python = tmp_path / "python"
    python.write_text(HOLDING_PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    job = Job(cluster, checkout, corpus, tmp_path, python)
    for attempt, iteration in enumerate((7, 13)):
        job.wait_for(attempt, iteration)
        # The step after the preflight's: KILL for the job itself would cancel it for good.
        cluster("scancel", "--signal=KILL", f"{job.id}.1")
    job.end()
    assert [text[0] for text in job.attempts()] == ["0", "1", "2"]
    first = [min(parse_log(text).losses) for text in job.attempts()]
    assert first == [1, 6, SWITCH + 1]
    assert losses(job) == losses(whole)


def test_out_of_time_it_saves_and_goes_on_with_the_same_losses(whole, cluster, checkout, corpus, tmp_path):
    """Megatron-LM ends two minutes after the start, two before the limit, at a step that no interval would have saved."""
    python = tmp_path / "python"
    python.write_text(SLOW_PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    # SLURM's own signal comes later than in the script, whose two minutes would be half of this limit.
    job = Job(cluster, checkout, corpus, tmp_path, python, minutes=4, margin=2, options=["--signal=B:USR1@10"]).end()
    first, second, *_ = job.attempts()
    assert "queued again: saved before the time limit" in first
    went_on = min(parse_log(second).losses)
    assert went_on == max(parse_log(first).losses) + 1 < SWITCH
    # Of the second iteration after a start Megatron-LM prints no loss of its own.
    assert losses(job) == {iteration: loss for iteration, loss in losses(whole).items() if iteration != went_on + 1}


# One node's fingerprint is another than the other's, as with another image.
OTHER_PYTHON = """\
#!/bin/bash
if [[ "$*" == *--fingerprint* && $SLURM_PROCID == 1 ]]; then echo 0123456789abcdef; exit; fi
exec {python} "$@"
"""


def test_nodes_that_would_make_different_tokens_do_not_start(cluster, checkout, corpus, tmp_path):
    python = tmp_path / "python"
    python.write_text(OTHER_PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    job = Job(cluster, checkout, corpus, tmp_path, python)
    assert cluster.wait_for_end(job.id, 120) == "FAILED"
    assert "the nodes would make different tokens" in job.text()
    assert "0123456789abcdef n2" in job.text()
    assert not parse_log(job.text()).iterations


def test_a_launch_that_plan_refuses_does_not_start(cluster, checkout, corpus, tmp_path):
    job = Job(cluster, checkout, corpus, tmp_path, entry="nca:tokens=5000,grid=4,colours=3")
    assert cluster.wait_for_end(job.id, 120) == "FAILED"
    assert "is no key of an entry" in job.text()
    assert "plan refused the launch" in job.text()
    assert not parse_log(job.text()).iterations


def test_a_time_limit_without_time_to_train_is_refused(cluster, checkout, corpus, tmp_path):
    job = Job(cluster, checkout, corpus, tmp_path, minutes=2, margin=15)
    assert cluster.wait_for_end(job.id, 60) == "FAILED"
    assert "raise --time or lower MARGIN" in job.text()


def test_a_complete_run_ends_at_once(whole, cluster, checkout, corpus):
    """The next link of a chain finds the run complete."""
    job = Job(cluster, checkout, corpus, whole.folder, log="again.log").end()
    assert job.text().splitlines()[-1].startswith("complete since")
    assert not parse_log(job.text()).iterations


@pytest.mark.parametrize("script", sorted((PROJECT / "examples/slurm").glob("*.s*")), ids=lambda path: path.name)
def test_the_scripts_parse(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, env=os.environ.copy())
    assert done.returncode == 0, done.stderr
