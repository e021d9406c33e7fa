"""The quickstart on Megatron-Core against the same mathematics in plain PyTorch, through the switch."""

import json
import subprocess
import sys

import pytest

STEPS = 15
PROGRAM = """
import json, sys
from pathlib import Path
from benchmarks.science.agreement import compare
steps = compare(Path(sys.argv[1]), {steps}, {steps}, documents=40, embeddings_decay={decay})
print(json.dumps([(step.phase, step.megatron, step.plain) for step in steps]))
"""


@pytest.fixture
def compared(tmp_path):
    # In a process of its own: Megatron's world and the registered run are a process's.
    def run(decay):
        program = PROGRAM.format(steps=STEPS, decay=decay)
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert found.returncode == 0, found.stderr[-2000:]
        return json.loads(found.stdout)

    return run


@pytest.mark.slow
def test_losses_agree_step_by_step_in_both_phases(compared):
    steps = compared(decay=True)
    assert [phase for phase, *_ in steps] == ["NCA"] * STEPS + ["text"] * STEPS
    assert max(abs(megatron - plain) for _, megatron, plain in steps) < 1e-4
    # The embeddings are new at the switch, so the loss is that of an untrained model once more.
    assert steps[STEPS][1] > 5.5 > steps[STEPS - 1][1]


@pytest.mark.slow
def test_a_difference_in_weight_decay_alone_is_seen(compared):
    steps = compared(decay=False)
    assert max(abs(megatron - plain) for _, megatron, plain in steps) > 1e-4
