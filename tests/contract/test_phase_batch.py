"""A phase with a global batch of its own, in whole runs of the real stacks: as two launches would train, one with each batch.

The first launch has the phase's batch and the same length in samples; the second goes on from its checkpoint of the switch with
the run's batch. Their text is the same, since a longer batch changes no order.
"""

import re

import pytest
import torch

from tests.contract.launched import Change
from tests.contract.test_launches import HERE, MISSING

pytestmark = pytest.mark.slow

OWN, BATCH = 8, 32
PHASE, TEXT = 20, 24
"""Steps. 10,240 tokens are 160 samples of 64: 20 batches of 8, or 5 of 32."""
SWITCH = PHASE * OWN
SAMPLES = SWITCH + TEXT * BATCH
PROCESS = "grid=4,colors=3,gzip=none,trajectory=64"


class Launches:
    """The run whose phase has a batch of its own, and the first of the two launches."""

    def __init__(self, stack, text, folder):
        self.stack, self.text, self.folder = stack, str(text), folder
        self.one = self.start("one", f"nca:tokens={SWITCH * 64},batch={OWN},{PROCESS}", BATCH, PHASE + TEXT, saves=True)
        self.first = self.start("first", f"nca:tokens={SWITCH * 64},{PROCESS}", OWN, SAMPLES // OWN, saves=True)

    def start(self, name, entry, batch, steps, checkpoint=None, saves=False):
        """Start one of them, which must succeed."""
        change = Change(path=(entry, self.text), batch=batch, steps=steps)
        outcome = self.stack.start(self.folder / name, self.text, change, checkpoint, saves)
        assert outcome.succeeded, outcome.printed[-4000:]
        return outcome


@pytest.fixture(scope="module", params=[*(pytest.param(stack, id=stack.label) for stack in HERE), *MISSING])
def launches(request, corpus, tmp_path_factory):
    return Launches(request.param, corpus, tmp_path_factory.mktemp("batches"))


def consumed(outcome):
    """Samples after each step, as the stack itself counts them."""
    found = re.findall(r"iteration +(\d+)/.*?consumed samples: +(\d+)", outcome.printed)
    return {int(step): int(samples) for step, samples in found}


def test_the_stack_counts_the_samples_of_both_batches(launches):
    counted = consumed(launches.one)
    expected = [*range(OWN, SWITCH + 1, OWN), *range(SWITCH + BATCH, SAMPLES + 1, BATCH)]
    assert len(counted) >= PHASE + TEXT - 1
    assert counted == {step: expected[step - 1] for step in counted}


def test_the_switch_is_at_the_same_sample(launches):
    assert launches.one.switches == launches.first.switches == [PHASE]
    for outcome in (launches.one, launches.first):
        assert f"switch to text after {SWITCH} samples (10,240 tokens)" in outcome.printed


def test_the_phase_trains_as_a_launch_with_its_batch(launches):
    # The rate that is shown may be the next step's, which is not the phase's any more at its last.
    shared = [step for step in range(1, PHASE) if step in launches.one.steps and step in launches.first.steps]
    assert len(shared) >= PHASE - 2
    assert {step: launches.one.steps[step] for step in shared} == {step: launches.first.steps[step] for step in shared}
    assert launches.one.steps[PHASE][0] == launches.first.steps[PHASE][0]


def test_the_text_trains_as_a_launch_with_the_runs_batch(launches, tmp_path):
    checkpoint = launches.stack.checkpoint(launches.folder / "first", PHASE, tmp_path / "from")
    entry = f"nca:tokens={SWITCH * 64},{PROCESS}"
    steps = SAMPLES // BATCH
    if launches.stack.label == "NeMo":
        # It goes on counting steps, and its scheduler's state would bring the first launch's number of them.
        steps = PHASE + TEXT
        [common] = checkpoint.glob("*/weights/common.pt")
        state = torch.load(common, weights_only=False, map_location="cpu")
        torch.save({**state, "lr_schedulers": []}, common)
    second = launches.start("second", entry, BATCH, steps, checkpoint)
    assert second.switches == [0], "at its beginning"
    assert min(second.steps) > PHASE
    shared = sorted(second.steps.keys() & launches.one.steps.keys())
    assert len(shared) >= steps - PHASE - 1
    assert {step: second.steps[step] for step in shared} == {step: launches.one.steps[step] for step in shared}
    counted = consumed(second)
    assert counted == {step: SWITCH + BATCH * (step - PHASE) for step in counted}
    assert counted


@pytest.mark.parametrize("step", [15, 25])
def test_it_goes_on_from_a_checkpoint_in_either_batch(launches, step, tmp_path):
    checkpoint = launches.stack.checkpoint(launches.folder / "one", step, tmp_path / "from")
    entry = f"nca:tokens={SWITCH * 64},batch={OWN},{PROCESS}"
    resumed = launches.start(f"from{step}", entry, BATCH, PHASE + TEXT, checkpoint)
    whole = {number: values for number, values in launches.one.steps.items() if number > step}
    shared = whole.keys() & resumed.steps.keys()
    assert len(shared) > 5
    assert {number: resumed.steps[number] for number in shared} == {number: whole[number] for number in shared}
