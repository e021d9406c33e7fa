"""A phase with a global batch of its own trains as a launch of its own with that batch would, and the text as it ever does."""

from dataclasses import replace

import pytest

from megatron_nca.rehearsal.megatron_lm import TINY_GPT_FLAGS, Run
from tests.frameworks.test_batch_ramp import without
from tests.frameworks.test_megatron_lm import our_lines, saving, with_flags
from tests.frameworks.test_two_runs import NCA_WARMUP, PRINTED, PROCESS, SCHEDULED, transfer

pytestmark = pytest.mark.slow

OWN, BATCH = 4, 8
PHASE, TEXT = 20, 14
"""Iterations: 5,120 tokens are 80 samples of 64 tokens, 20 batches of 4."""
ENTRY = f"nca:tokens=5120,batch={OWN},{PROCESS}"
SAMPLES = PHASE * OWN + TEXT * BATCH


@pytest.fixture
def run(checkout, corpus):
    return Run(checkout, ("--data-path", ENTRY, str(corpus), "--train-iters", str(PHASE + TEXT), *SCHEDULED))


def in_samples(run):
    """The same run, its length in samples."""
    flags = ("--train-samples" if flag == "--train-iters" else flag for flag in run.flags)
    flags = tuple(str(SAMPLES) if flag == str(PHASE + TEXT) else flag for flag in flags)
    return replace(run, flags=flags, model=without(TINY_GPT_FLAGS, "--train-iters"))


def test_one_run_is_what_two_launches_would_be(run, checkout, corpus, tmp_path):
    log = run.complete(tmp_path / "one")
    consumed = [record.consumed_samples for record in log.iterations]
    assert consumed == [*range(OWN, PHASE * OWN + 1, OWN), *range(PHASE * OWN + BATCH, SAMPLES + 1, BATCH)]
    assert f"switch to text after {PHASE * OWN} samples" in our_lines((tmp_path / "one" / "rank0.log").read_text())[1]

    saved = ("--save", str(tmp_path / "nca"), "--save-interval", str(PHASE), "--ckpt-format", "torch_dist")
    data = ("--data-path", f"nca:{PROCESS}", "--train-iters", str(PHASE), "--global-batch-size", str(OWN))
    nca = Run(checkout, (*data, *SCHEDULED, *NCA_WARMUP, *saved)).complete(tmp_path / "first")
    start = transfer(tmp_path / "nca", tmp_path / "start")
    load = ("--load", str(start), "--finetune", "--ckpt-format", "torch_dist")
    alone = Run(checkout, ("--data-path", str(corpus), "--train-iters", str(TEXT), *SCHEDULED, *load), plugin=False)
    text = alone.complete(tmp_path / "second")
    parts = {**nca.losses, **{PHASE + iteration: loss for iteration, loss in text.losses.items()}}
    shared = parts.keys() & log.losses.keys()
    assert len(shared) >= PHASE + TEXT - 3
    assert {place: log.losses[place] for place in shared} == {place: parts[place] for place in shared}
    rates = [record.learning_rate for record in log.iterations]
    # The rate that is printed is the next step's; where the first launch ends, that is none of its own.
    assert rates[: PHASE - 1] == [record.learning_rate for record in nca.iterations][: PHASE - 1]
    assert rates[PHASE:] == [record.learning_rate for record in text.iterations]


def test_the_length_may_be_given_in_samples(run, tmp_path):
    steps, samples = run.complete(tmp_path / "steps"), in_samples(run).complete(tmp_path / "samples")
    assert samples.losses == steps.losses
    assert max(samples.losses) == PHASE + TEXT


@pytest.mark.parametrize("killed_at", [7, PHASE, 26])
def test_a_killed_run_goes_on(run, killed_at, tmp_path):
    whole = run.complete(tmp_path / "whole")
    kept = saving(run, tmp_path / "checkpoint")
    with_flags(kept, "--exit-interval", str(killed_at)).complete(tmp_path / "first")
    resumed = kept.complete(tmp_path / "resumed")
    shared = resumed.losses.keys() & whole.losses.keys()
    assert {place: resumed.losses[place] for place in shared} == {place: whole.losses[place] for place in shared}
    assert max(resumed.losses) == PHASE + TEXT
    assert resumed.iterations[-1].consumed_samples == SAMPLES


def test_several_ranks_share_the_phases_batch(run, tmp_path):
    # Megatron-LM's loss is a mean over micro-batches, so their size stays.
    small = with_flags(run, "--micro-batch-size", "2")
    whole, two = small.complete(tmp_path / "one"), replace(small, data_parallel=2).complete(tmp_path / "two")
    shared = whole.losses.keys() & two.losses.keys()
    assert {place: two.losses[place] for place in shared} == pytest.approx(
        {place: whole.losses[place] for place in shared}, abs=PRINTED
    )


def test_a_batch_may_fall_again(run, corpus, tmp_path):
    words = (f"phase:tokens=1280 0.5 nca:{PROCESS} 0.5 {corpus} phase:batch=4 {corpus}").split()
    smaller = replace(run, flags=("--data-path", *words, "--train-iters", "8", *SCHEDULED))
    consumed = [record.consumed_samples for record in smaller.complete(tmp_path).iterations]
    assert consumed == [8, 16, 24, 28, 32, 36, 40, 44]


def test_a_batch_that_the_ranks_cannot_share_is_refused(run, corpus, tmp_path):
    words = ("--data-path", f"nca:tokens=5120,batch=6,{PROCESS}", str(corpus), "--train-iters", "8")
    message = replace(run, flags=(*words, *SCHEDULED)).fail(tmp_path)
    assert "is no multiple of 4" in message
    assert "the nearest that fit are 4 or 8" in message
