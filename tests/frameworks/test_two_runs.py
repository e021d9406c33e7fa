"""The two-run way gives the text the same losses as the one-run way: NCA alone, `megatron-nca transfer`, text alone.

Dropout is off: a run that starts anew draws other masks than one that goes on.
"""

from dataclasses import replace

import pytest

from megatron_nca.cli.main import main
from megatron_nca.rehearsal.megatron_lm import Run

pytestmark = pytest.mark.slow

BATCH, SWITCH, ITERATIONS = 8, 10, 24
PROCESS = "grid=4,colors=3,gzip=none,trajectory=64"
SCHEDULED = ("--hidden-dropout", "0", "--attention-dropout", "0")
NCA_WARMUP = ("--lr-warmup-fraction", "0.1")
"""Warm-up of an NCA phase inside one run."""

PRINTED = 1e-5
"""What other orders of summation may change in a loss of six decimals."""

LAYOUTS = {"TP=1": {}, "TP=2": {"tensor_parallel": 2}, "PP=2": {"pipeline_parallel": 2}}


def one_run(checkout, corpus, folder, *flags):
    """The text phase's losses of one run, counted from the switch."""
    entry = f"nca:tokens=5120,{PROCESS}"
    data = ("--data-path", entry, str(corpus), "--train-iters", str(ITERATIONS))
    losses = Run(checkout, (*data, *SCHEDULED, *flags)).complete(folder).losses
    return {iteration - SWITCH: loss for iteration, loss in losses.items() if iteration > SWITCH}


def nca_run(checkout, folder, *flags):
    """A run of NCA alone; returns its checkpoint."""
    saved = ("--save", str(folder / "nca"), "--save-interval", str(SWITCH))
    data = ("--data-path", f"nca:{PROCESS}", "--train-iters", str(SWITCH))
    Run(checkout, (*data, *SCHEDULED, *NCA_WARMUP, *saved, *flags)).complete(folder / "run")
    return folder / "nca"


def text_run(checkout, corpus, start, *flags, **layout):
    data = ("--data-path", str(corpus), "--train-iters", str(ITERATIONS - SWITCH))
    return replace(Run(checkout, (*data, *SCHEDULED, *start, *flags), plugin=False), **layout)


def transfer(load, save, *flags):
    assert main(["transfer", "--load", str(load), "--save", str(save), *flags]) == 0
    return save


def assert_same(losses, expected, tolerance=0.0):
    assert max(losses) == ITERATIONS - SWITCH
    known = {iteration: loss for iteration, loss in expected.items() if iteration in losses}
    assert {iteration: losses[iteration] for iteration in known} == pytest.approx(known, abs=tolerance)
    assert len(known) >= ITERATIONS - SWITCH - 1


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def both(checkout, corpus, made, tmp_path_factory):
    """(losses of the one run, the start of the other's text) in torch_dist, once for a checkout."""
    if checkout not in made:
        folder = tmp_path_factory.mktemp("two")
        expected = one_run(checkout, corpus, folder / "one")
        start = transfer(nca_run(checkout, folder, "--ckpt-format", "torch_dist"), folder / "start")
        made[checkout] = expected, start
    return made[checkout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_in_any_layout_starts_as_after_a_switch(checkout, corpus, both, layout, tmp_path):
    expected, start = both
    load = ("--load", str(start), "--finetune", "--ckpt-format", "torch_dist")
    losses = text_run(checkout, corpus, load, **LAYOUTS[layout]).complete(tmp_path).losses
    assert_same(losses, expected, 0.0 if layout == "TP=1" else PRINTED)


def test_a_start_needs_no_finetune(checkout, corpus, both, tmp_path):
    expected, start = both
    run = text_run(checkout, corpus, ("--load", str(start), "--ckpt-format", "torch_dist"))
    assert_same(run.complete(tmp_path).losses, expected)


def test_a_requeued_text_run_goes_on_from_its_own_checkpoint(checkout, corpus, both, tmp_path):
    """The same command starts from the start and, once there is one, from what the run itself has saved."""
    expected, start = both
    own = str(tmp_path / "text")
    load = ("--pretrained-checkpoint", str(start), "--load", own, "--save", own, "--save-interval", "5")
    run = text_run(checkout, corpus, (*load, "--ckpt-format", "torch_dist"))
    first = run.kill_at(8, tmp_path / "killed").losses
    again = run.complete(tmp_path / "again").losses
    assert min(first) == 1
    assert min(again) == 6
    assert_same({**first, **again}, expected)


@pytest.mark.parametrize("parts", ["embeddings", "embeddings,attention,mlp,norms"])
def test_the_format_torch_starts_as_after_a_switch(checkout, corpus, parts, tmp_path):
    shape = ("--untie-embeddings-and-output-weights", "--swiglu", "--ckpt-format", "torch")
    expected = one_run(checkout, corpus, tmp_path / "one", *shape, "--nca-reinit", parts)
    start = transfer(nca_run(checkout, tmp_path, *shape), tmp_path / "start", "--reinit", parts)
    run = text_run(checkout, corpus, ("--load", str(start), "--finetune"), *shape)
    assert_same(run.complete(tmp_path / "text").losses, expected)
