"""Megatron-LM's own pre-training, from NCA to text, on the stand-in.

Each test takes `checkout`, so it runs with every checkout that MEGATRON_LM names and skips where it names none.
"""

import math
import os
import re
import subprocess
from dataclasses import replace

import pytest

from megatron_nca.rehearsal.megatron_lm import Run

pytestmark = pytest.mark.slow

SEQUENCE, BATCH = 64, 8
ITERATIONS = 24
SWITCH = 10
"""The iteration after which the NCA phase ends: 5,000 tokens are 79 samples, and 80 with whole batches."""
ENTRY = "nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64"
EXACT = ("--hidden-dropout", "0", "--attention-dropout", "0")
SAVED_AT = 5

PRINTED = 1e-5
"""What other orders of summation may change in a loss of six decimals."""


@pytest.fixture
def run(checkout, corpus):
    data = ("--data-path", ENTRY, str(corpus), "--train-iters", str(ITERATIONS))
    return Run(checkout, flags=(*data, *EXACT))


@pytest.fixture(scope="module")
def once():
    """Results of runs that several tests look at."""
    return {}


@pytest.fixture
def whole(run, once, tmp_path_factory):
    """The uninterrupted run, what it printed, and the folder of its checkpoints."""
    if run.checkout not in once:
        folder = tmp_path_factory.mktemp("whole")
        save = ("--save", str(folder / "checkpoint"), "--save-interval", str(SAVED_AT), "--ckpt-format", "torch_dist")
        log = with_flags(run, *save).complete(folder)
        once[run.checkout] = (log, (folder / "rank0.log").read_text(), folder / "checkpoint")
    return once[run.checkout]


def with_flags(run, *flags):
    return replace(run, flags=(*run.flags, *flags))


def our_lines(output):
    return [line for line in output.splitlines() if line.startswith("megatron-nca:")]


def assert_same(log, reference, tolerance=0.0):
    expected = {iteration: loss for iteration, loss in reference.losses.items() if iteration in log.losses}
    assert log.losses == pytest.approx(expected, abs=tolerance)
    assert max(log.losses) == ITERATIONS


def test_the_log_tells_the_plan_and_the_switch(whole):
    plan, switch = our_lines(whole[1])
    assert "for 5,120 tokens (samples 0 to 80)" in plan
    assert plan.endswith("phases end after iterations 10")
    assert "switch to text after 80 samples (5,120 tokens)" in switch


def test_the_switch_is_at_its_iteration(whole):
    output = whole[1]
    switch = output.index("switch to text")
    assert output.index(f"iteration {SWITCH:8d}/") < switch < output.index(f"iteration {SWITCH + 1:8d}/")


def test_the_loss_falls_in_both_phases(whole):
    losses = whole[0].losses
    assert all(math.isfinite(loss) for loss in losses.values())
    assert losses[SWITCH] < losses[1] - 0.2
    assert losses[ITERATIONS] < losses[SWITCH + 1] - 0.2


def test_new_embeddings_know_nothing(whole):
    assert whole[0].losses[SWITCH + 1] == pytest.approx(math.log(256), abs=0.3)


def test_the_learning_rate_follows_both_schedules(whole):
    """What the log shows beside iteration i is the rate of the step that follows it."""
    rates = {record.iteration: record.learning_rate for record in whole[0].iterations}
    switch, end, peak, least = SWITCH * BATCH, ITERATIONS * BATCH, 1e-3, 1e-4

    def cosine(position, warmup, length):
        if position <= warmup:
            return peak * position / warmup
        return least + (peak - least) * (1 + math.cos(math.pi * (position - warmup) / (length - warmup))) / 2

    for iteration, rate in rates.items():
        samples = iteration * BATCH
        if samples < switch:
            expected = cosine(samples, 0.1 * switch, switch)
        else:
            expected = cosine(samples - switch, 0.2 * (end - switch), end - switch)
        assert rate == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("layout", [{"tensor_parallel": 2}, {"pipeline_parallel": 2}, {"data_parallel": 2}], ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_every_layout_crosses_the_switch_with_the_same_losses(run, once, whole, layout, tied, tmp_path, tmp_path_factory):
    """From one checkpoint in the NCA phase on, since Megatron draws a model's first weights differently in each layout."""
    reference, _, checkpoint = whole
    if not tied:
        run = with_flags(run, "--untie-embeddings-and-output-weights")
        if (run.checkout, "untied") not in once:
            folder = tmp_path_factory.mktemp("untied")
            once[run.checkout, "untied"] = (
                saving(run, folder / "checkpoint", SAVED_AT).complete(folder),
                folder / "checkpoint",
            )
        reference, checkpoint = once[run.checkout, "untied"]
    loading = with_flags(run, "--load", str(checkpoint), "--ckpt-step", str(SAVED_AT))
    log = replace(loading, **layout).complete(tmp_path)
    assert min(log.losses) == SAVED_AT + 1
    assert_same(log, reference, tolerance=PRINTED)


def test_the_distributed_optimizer_crosses_the_switch_with_the_same_losses(run, whole, tmp_path):
    other = replace(with_flags(run, "--use-distributed-optimizer"), data_parallel=2)
    assert_same(other.complete(tmp_path), whole[0], tolerance=PRINTED)


def test_half_precision_crosses_the_switch(run, tmp_path):
    """Master copies follow the new embeddings: the first text step starts from them and not from those of NCA."""
    log = replace(with_flags(run, "--bf16", "--use-distributed-optimizer"), data_parallel=2).complete(tmp_path)
    assert log.losses[SWITCH + 1] == pytest.approx(math.log(256), abs=0.3)
    assert log.losses[SWITCH + 3] == pytest.approx(math.log(256), abs=0.5)
    assert log.losses[ITERATIONS] < log.losses[SWITCH + 1] - 0.2


def saving(run, folder, interval=1):
    return with_flags(
        run, "--save", str(folder), "--load", str(folder), "--save-interval", str(interval), "--ckpt-format", "torch_dist"
    )


KILLS = (3, SWITCH, 14)


@pytest.mark.parametrize("checkpoint_format", ["torch_dist", "torch"])
def test_a_killed_run_goes_on_with_the_same_losses(run, whole, checkpoint_format, tmp_path):
    """Killed in the NCA phase, between the checkpoint at the boundary and the first text step, and after it."""
    kept = saving(run, tmp_path / "checkpoint", interval=5)
    kept = with_flags(kept, "--ckpt-format", checkpoint_format)
    seen = {}
    for kill in KILLS:
        exiting = with_flags(kept, "--exit-interval", str(SWITCH)) if kill == SWITCH else None
        folder = tmp_path / f"killed{kill}"
        log = exiting.complete(folder) if exiting else kept.kill_at(kill, folder)
        seen.update(log.losses)
    last = kept.complete(tmp_path / "last")
    seen.update(last.losses)
    for losses in (seen, last.losses):
        for iteration, loss in losses.items():
            assert loss == whole[0].losses[iteration]
    assert max(seen) == ITERATIONS


def test_the_transition_is_neither_repeated_nor_forgotten(run, tmp_path):
    kept = saving(run, tmp_path / "checkpoint")
    counts = []
    for stop in (SWITCH, SWITCH + 1, SWITCH + 3):
        folder = tmp_path / str(stop)
        with_flags(kept, "--exit-interval", str(stop)).complete(folder)
        counts.append(sum("switch to text" in line for line in our_lines((folder / "rank0.log").read_text())))
    assert counts == [0, 1, 0]


def test_another_curriculum_is_refused_with_both_side_by_side(run, tmp_path):
    kept = with_flags(saving(run, tmp_path / "checkpoint"), "--exit-interval", "2")
    kept.complete(tmp_path / "first")
    other = replace(kept, flags=tuple(ENTRY.replace("5000", "9000") if flag == ENTRY else flag for flag in kept.flags))
    output = other.fail(tmp_path / "refused")
    assert "CurriculumError: the checkpoint was written under another curriculum" in output
    assert "tokens=5000" in output
    assert "tokens=9000" in output
    with_flags(other, "--nca-override-curriculum", "--exit-interval", "4").complete(tmp_path / "overridden")


def test_a_launch_that_forgot_the_entry_is_refused(run, corpus, tmp_path):
    kept = with_flags(saving(run, tmp_path / "checkpoint"), "--exit-interval", "2")
    kept.complete(tmp_path / "first")
    assert "this launch has no nca: entry" in with_flags(kept, "--data-path", str(corpus)).fail(tmp_path / "refused")


def test_a_checkpoint_without_a_curriculum_must_say_where_it_stands(run, corpus, tmp_path):
    kept = with_flags(saving(run, tmp_path / "checkpoint"), "--exit-interval", "2")
    with_flags(kept, "--data-path", str(corpus)).complete(tmp_path / "plain")
    assert "give --nca-resume-as before-switch" in kept.fail(tmp_path / "refused")
    told = with_flags(kept, "--nca-resume-as", "before-switch", "--exit-interval", "3")
    assert max(told.complete(tmp_path / "told").losses) == 3


REFUSALS = {
    "cyclic": (("--dataloader-type", "cyclic"), "--dataloader-type single"),
    "external": (("--dataloader-type", "external"), "--dataloader-type single"),
    "vocabulary": (("--data-path", "nca:tokens=5000,gzip=none,colors=5,grid=4,trajectory=64", "/x"), "use colors=3 or fewer"),
    "entry": (("--data-path", "nca:token=5000", "/x"), "token=5000: is no key of an entry"),
    "warm-up": (("--nca-lr-warmup-samples", "80"), "does not fit the NCA phases"),
    "offset": (("--data-path", "nca:tokens=5000,grid=4,colors=3,vocab=offset:250,trajectory=64", "/x"), "vocabulary ends"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_cannot_work_is_refused_before_the_first_step(run, refusal, tmp_path):
    flags, message = REFUSALS[refusal]
    output = with_flags(run, *flags).fail(tmp_path)
    assert message in output
    assert "NCAError" in output or "EntryError" in output or "CurriculumError" in output or "VocabularyError" in output
    assert "iteration        1/" not in output


def test_flags_without_an_entry_are_refused(run, corpus, tmp_path):
    output = with_flags(run, "--data-path", str(corpus), "--nca-lr", "1e-4").fail(tmp_path)
    assert "--nca-lr is given, but no data path has an nca: entry" in output


def test_without_an_entry_the_launch_changes_nothing(run, corpus, tmp_path):
    text = with_flags(run, "--data-path", str(corpus), "--data-cache-path", "cache")
    logs = {}
    for plugin in (False, True):
        folder = tmp_path / str(plugin)
        log = replace(
            with_flags(text, "--save", "checkpoint", "--save-interval", "50", "--ckpt-format", "torch"), plugin=plugin
        ).complete(folder)
        logs[plugin] = (log.losses, timeless(folder), read_checkpoint(run, folder))
    assert logs[True] == logs[False]


def timeless(folder):
    """What a run printed, without times, and in no order: Megatron prints sets."""
    varying = re.compile(r"time|seconds|elapsed|memory|\([\d.]+, [\d.]+\)|rank +0:|\[\d{4}-")
    lines = (folder / "rank0.log").read_text().splitlines()
    return sorted(line for line in lines if not varying.search(line))


READ_CHECKPOINT = """
import hashlib, pathlib, sys, torch
state = torch.load(next(pathlib.Path(sys.argv[1]).rglob("model_optim_rng.pt")), weights_only=False, map_location="cpu")
print(sorted((name, repr(value)) for name, value in vars(state["args"]).items()))
for name, value in sorted(state["model"].items()):
    if isinstance(value, torch.Tensor):
        print(name, hashlib.sha256(value.numpy().tobytes()).hexdigest())
print(sorted(state))
"""


def read_checkpoint(run, folder):
    """Arguments, weights and entries of a checkpoint, read where Megatron's own classes are at hand."""
    environment = {**os.environ, "PYTHONPATH": str(run.checkout.path), "PYTHONWARNINGS": "ignore"}
    command = [run.python, "-c", READ_CHECKPOINT, str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
