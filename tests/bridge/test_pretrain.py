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

from megatron_nca.rehearsal.ports import free_ports

if importlib.util.find_spec("megatron") is None or importlib.util.find_spec("megatron.bridge") is None:
    pytest.skip("needs Megatron-Bridge; make test-bridge brings it", allow_module_level=True)


pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
SWITCH, STEPS = 10, 24


def launch(folder, corpus, *options, ranks=1):
    """Run the script; return its exit status, what it printed, and {step: (loss, learning rate)}, bit for bit."""
    [port] = free_ports(1)
    meeting = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), *meeting]
    script = ["tests/bridge/tiny_pretrain.py", str(corpus), "--folder", str(folder), *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *torchrun, *script], cwd=PROJECT, env=environment, stdout=output, stderr=output,
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


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_in_both_phases_it_ends_with_the_same_losses(ranks, whole, corpus, tmp_path):
    """The last rank dies, so that the others must notice; every attempt but the first starts from a checkpoint."""
    expected = whole[1]
    if ranks > 1:
        status, output, expected = launch(tmp_path / "whole", corpus, ranks=ranks)
        assert status == 0, output
        assert output.count("switch to text") == 1
        for step in range(1, STEPS + 1):
            assert loss(expected, step) == pytest.approx(loss(whole[1], step), rel=1e-5)
    for die_after in (7, 13):
        status, output, steps = launch(tmp_path / "killed", corpus, "--die-after", str(die_after), ranks=ranks)
        assert status == 1
        assert "Signal 9 (SIGKILL)" in output
        assert steps
        assert steps == {step: expected[step] for step in steps}
    status, output, steps = launch(tmp_path / "killed", corpus, ranks=ranks)
    assert status == 0, output
    assert steps == {step: expected[step] for step in range(11, STEPS + 1)}
    # The last checkpoint before the second kill is that of the boundary, so the switch is still to come.
    assert output.count("switch to text") == 1


def test_overrides_of_the_command_line_reach_the_transition(whole, corpus, tmp_path):
    status, output, steps = launch(tmp_path, corpus, "nca.lr=5e-4", "nca.reinit=embeddings,mlp", "train.train_iters=13")
    assert status == 0, output
    assert re.search(r"reinitialised embeddings \(\d+ weights?\), mlp \(\d+ weights?\)", output)
    rates = {step: float.fromhex(rate) for step, (_, rate) in steps.items()}
    assert max(rates[step] for step in range(1, SWITCH)) == pytest.approx(5e-4)
    assert rates[SWITCH + 2] == pytest.approx(1e-3)


def test_resumed_under_another_curriculum_it_is_refused_before_a_step(corpus, tmp_path):
    status, output, _ = launch(tmp_path, corpus, "--die-after", "6")
    assert status == 1
    entry = "nca:tokens=7000,grid=4,colors=3,gzip=none,trajectory=64"
    status, output, steps = launch(tmp_path, corpus, f'dataset.blend=[["{entry}","{corpus}"],null]')
    assert status == 1
    assert not steps
    assert "the checkpoint was written under another curriculum" in output
