"""Bridge's own ``pretrain`` from NCA to text, on the CPU stand-in: whole, and killed in both phases."""

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("megatron") is None or importlib.util.find_spec("megatron.bridge") is None:
    pytest.skip("needs Megatron-Bridge; make test-bridge brings it", allow_module_level=True)

from megatron_nca.testing.corpus import write_corpus

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
SWITCH, STEPS = 10, 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    documents = [bytes(97 + (7 * start + place * place) % 13 for place in range(400)) for start in range(200)]
    return write_corpus(tmp_path_factory.mktemp("corpus") / "text", documents)


def launch(folder, corpus, die_after=None):
    """Run the script; return its exit status, what it printed, and {step: (loss, learning rate)}, bit for bit."""
    command = [sys.executable, "-m", "megatron_nca.testing", "--plain", str(PROJECT / "tests/bridge/tiny_pretrain.py")]
    died = () if die_after is None else (str(die_after),)
    environment = {
        **os.environ, "CUDA_VISIBLE_DEVICES": "", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29781", "PYTHONPATH": str(PROJECT),
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, str(folder), str(corpus), *died], cwd=folder, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        status = process.wait(timeout=300)
    # Helpers of a killed run outlive it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    printed = log.read_text()
    steps = {int(step): values for step, *values in re.findall(r"^LOSS (\d+) (\S+) (\S+)$", printed, re.MULTILINE)}
    return status, printed, steps


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    status, output, steps = launch(tmp_path_factory.mktemp("whole"), corpus)
    assert status == 0, output
    return output, steps


def loss(steps, step):
    return float.fromhex(steps[step][0])


def test_a_run_passes_from_nca_to_text(whole):
    output, steps = whole
    assert sorted(steps) == list(range(1, STEPS + 1))
    assert "for 5,120 tokens (samples 0 to 80)" in output
    switch = output.index("switch to text after 80 samples (5,120 tokens)")
    assert output.index(f"LOSS {SWITCH} ") < switch < output.index(f"LOSS {SWITCH + 1} ")
    assert loss(steps, SWITCH) < loss(steps, 1)
    assert loss(steps, STEPS) < loss(steps, SWITCH + 1)


def test_the_learning_rate_restarts_with_the_text(whole):
    rates = {step: float.fromhex(rate) for step, (_, rate) in whole[1].items()}
    # What is printed after a step is the next one's: a warm-up of 2 iterations, then a cosine to the end of the run.
    assert [rates[SWITCH], rates[SWITCH + 1], rates[SWITCH + 2]] == pytest.approx([0, 5e-4, 1e-3])
    assert rates[STEPS] == pytest.approx(1e-4)


def test_killed_in_both_phases_it_ends_with_the_same_losses(whole, corpus, tmp_path):
    for die_after in (7, 13):
        status, output, steps = launch(tmp_path, corpus, die_after)
        assert status == -signal.SIGKILL, output
        assert steps == {step: whole[1][step] for step in steps}
    status, output, steps = launch(tmp_path, corpus)
    assert status == 0, output
    assert steps == {step: whole[1][step] for step in range(11, STEPS + 1)}
    # The last checkpoint before the second kill is that of the boundary, so the switch is still to come.
    assert output.count("switch to text") == 1
