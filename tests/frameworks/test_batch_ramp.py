"""A phase under --rampup-batch-size or --step-batch-size-schedule ends on the boundary of a batch of the ramp."""

import pytest

from megatron_nca.rehearsal.megatron_lm import TINY_GPT_FLAGS, Run
from tests.frameworks.test_megatron_lm import ENTRY, EXACT, our_lines, saving, with_flags

pytestmark = pytest.mark.slow

SAMPLES = 92
BATCHES = [4] * 5 + [6] * 4 + [8] * 6
"""From 4 in steps of 2 over 40 samples: a batch grows at the first boundary at or after each 20 samples."""
SWITCH, SWITCH_SAMPLES = 6, 26
"""1,600 tokens are 25 samples of 64 tokens; with batches of 8 they would be 32, after iteration 4."""


def without(flags, *names):
    """Flags of one value each, less some of them."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return tuple(word for name, value in pairs if name not in names for word in (name, value))


@pytest.fixture
def run(checkout, corpus):
    model, ramp = without(TINY_GPT_FLAGS, "--train-iters"), ("--rampup-batch-size", "4", "2", "40")
    if checkout.version >= (0, 18, 0):
        # It ignores the ramp and has this instead: the same batches, each from a number of tokens on.
        model, ramp = without(model, "--global-batch-size"), ("--step-batch-size-schedule", "0:4 1280:6 2560:8")
    data = ("--data-path", ENTRY.replace("5000", "1600"), str(corpus), "--train-samples", str(SAMPLES))
    return Run(checkout, (*data, *EXACT, *ramp), model=(*model, "--micro-batch-size", "2"))


def test_the_switch_falls_on_a_boundary_of_the_ramp(run, tmp_path):
    log = run.complete(tmp_path / "whole")
    assert [record.consumed_samples for record in log.iterations] == [sum(BATCHES[: n + 1]) for n in range(len(BATCHES))]
    output = (tmp_path / "whole" / "rank0.log").read_text()
    plan, switch = our_lines(output)
    assert plan.endswith(f"phases end after iterations {SWITCH}")
    assert f"switch to text after {SWITCH_SAMPLES} samples" in switch
    assert output.index(f"iteration {SWITCH:8d}/") < output.index(switch) < output.index(f"iteration {SWITCH + 1:8d}/")


def test_a_run_resumed_in_the_ramp_switches_where_it_would_have(run, tmp_path):
    whole = run.complete(tmp_path / "whole")
    kept = saving(run, tmp_path / "checkpoint")
    with_flags(kept, "--exit-interval", "3").complete(tmp_path / "first")
    resumed = kept.complete(tmp_path / "resumed")
    assert {n: resumed.losses[n] for n in resumed.losses.keys() & whole.losses.keys()} == {
        n: whole.losses[n] for n in whole.losses.keys() & resumed.losses.keys()
    }
    _, switch = our_lines((tmp_path / "resumed" / "rank0.log").read_text())
    assert f"switch to text after {SWITCH_SAMPLES} samples" in switch


def test_a_ramp_that_outlives_the_run_takes_no_step_more_than_there_are_samples(checkout, corpus, tmp_path):
    """Megatron-LM counts one more; a text of its own has the samples for it, a curriculum ends."""
    model, ramp = without(TINY_GPT_FLAGS, "--train-iters"), ("--rampup-batch-size", "4", "4", "500")
    if checkout.version >= (0, 18, 0):
        model, ramp = without(model, "--global-batch-size"), ("--step-batch-size-schedule", "0:4 64000:8")
    data = ("--data-path", ENTRY.replace("5000", "1600"), str(corpus), "--train-samples", "62")
    log = Run(checkout, (*data, *EXACT, *ramp), model=(*model, "--micro-batch-size", "2")).complete(tmp_path)
    assert [record.consumed_samples for record in log.iterations] == list(range(4, 61, 4))
