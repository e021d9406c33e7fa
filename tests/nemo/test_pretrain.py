"""NeMo's own ``llm.pretrain`` from NCA to text, on the CPU stand-in."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("nemo") is None:
    pytest.skip("needs NeMo 2.7; make test-nemo brings it", allow_module_level=True)


pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
SWITCH, STEPS = 10, 24


def start(folder, corpus, *options, script="examples/nemo/tiny_pretrain.py"):
    command = [sys.executable, "-m", "megatron_nca.rehearsal", "--plain", PROJECT / script]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    output, errors = folder / "output", folder / "errors"
    with output.open("w") as out, errors.open("w") as err:
        # What a killed process has started, checkpoint writers for one, goes with its session.
        process = subprocess.Popen(
            [*map(str, command), str(folder), str(corpus), *map(str, options)],
            stdout=out, stderr=err, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    done = subprocess.CompletedProcess(command, code, output.read_text(), errors.read_text())
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("LOSS")]
    return done, {int(step): float.fromhex(loss) for _, step, loss in lines}


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    done, losses = start(tmp_path_factory.mktemp("whole"), corpus)
    assert done.returncode == 0, done.stderr[-3000:]
    return done, losses


def test_it_crosses_the_switch_at_its_step(whole):
    done, losses = whole
    assert "switch to text after 80 samples (5,120 tokens)" in done.stdout
    assert done.stdout.index(f"LOSS {SWITCH} ") < done.stdout.index("switch to text") < done.stdout.index(f"LOSS {SWITCH + 1} ")
    assert sorted(losses) == list(range(1, STEPS + 1))
    assert losses[SWITCH] < losses[1] - 0.2
    assert losses[STEPS] < losses[SWITCH + 1] - 0.2


def test_killed_in_the_phase_and_after_the_switch_it_ends_with_the_same_losses(whole, corpus, tmp_path):
    """Killed after step 7 it goes on from 5, from which it crosses the switch; killed after 13, from 10 or 11."""
    seen = {}
    for stop in (7, 13, None):
        done, losses = start(tmp_path, corpus, *(["--die-after", stop] if stop else []))
        assert done.returncode == (-signal.SIGKILL if stop else 0), done.stderr[-3000:]
        assert not seen or min(losses) > 1
        seen |= losses
        assert losses == {step: whole[1][step] for step in losses}
    assert seen == whole[1]


def test_the_papers_recipe_made_small_crosses_the_switch_after_its_small_batches(corpus, tmp_path):
    entry = "nca:tokens=2560,grid=6,colors=3,gzip=none,batch=4"
    done, losses = start(tmp_path, corpus, entry, 18, script="tests/nemo/launch_paper.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "samples 0 to 40, batches of 4) -> " in done.stdout
    assert done.stdout.index("LOSS 10 ") < done.stdout.index("switch to text after 40 samples") < done.stdout.index("LOSS 11 ")
    assert sorted(losses) == list(range(1, 19))
    assert losses[10] < losses[1] - 0.1


def test_the_papers_other_arm_is_text_alone(corpus, tmp_path):
    done, losses = start(tmp_path, corpus, "", 8, script="tests/nemo/launch_paper.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "switch to text" not in done.stdout
    assert sorted(losses) == list(range(1, 9))
