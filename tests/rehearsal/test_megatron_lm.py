"""Megatron-LM itself on the stand-in, without the plugin: what every other test of a run builds on.

Each test takes `checkout`, so it runs with every checkout that MEGATRON_LM names and skips where it names none.
"""

from dataclasses import replace

import pytest

from megatron_nca.rehearsal.megatron_lm import Run

pytestmark = pytest.mark.slow

ITERATIONS = 12
SAVED_AT = 6
WITHOUT_DROPOUT = ("--hidden-dropout", "0", "--attention-dropout", "0")

# Losses are printed with six decimals; sums in another order differ in the last.
PRINTED = 2e-6


@pytest.fixture
def run(checkout, corpus):
    return Run(checkout, flags=("--data-path", str(corpus), "--train-iters", str(ITERATIONS)), plugin=False)


@pytest.fixture(scope="module")
def once():
    """Results of runs that several tests look at."""
    return {}


@pytest.fixture
def uninterrupted(run, once, tmp_path):
    if run.checkout not in once:
        once[run.checkout] = run.complete(tmp_path / "uninterrupted")
    return once[run.checkout]


@pytest.fixture
def saved(run, once, tmp_path_factory):
    """A run without dropout that has saved a checkpoint half way, and the checkpoint's folder."""
    key = (run.checkout, "saved")
    if key not in once:
        folder = tmp_path_factory.mktemp("saved")
        saving = with_flags(run, *WITHOUT_DROPOUT, *save_to(folder / "checkpoint", "torch_dist"))
        once[key] = (saving.complete(folder), folder / "checkpoint")
    return once[key]


def with_flags(run, *flags):
    return replace(run, flags=(*run.flags, *flags))


def save_to(folder, checkpoint_format):
    return ("--save", str(folder), "--save-interval", str(SAVED_AT), "--ckpt-format", checkpoint_format)


def assert_same(log, reference, tolerance=0.0):
    """Every loss that a log holds is the reference's."""
    assert log.losses == pytest.approx({i: loss for i, loss in reference.losses.items() if i in log.losses}, abs=tolerance)
    assert max(log.losses) == ITERATIONS


def test_a_model_learns(uninterrupted):
    assert uninterrupted.losses[ITERATIONS] < uninterrupted.losses[1] - 0.3


def test_every_iteration_is_logged(uninterrupted):
    samples = {record.iteration: record.consumed_samples for record in uninterrupted.iterations}
    assert samples == {iteration: 8 * iteration for iteration in range(1, ITERATIONS + 1)}


def test_validations_are_logged(uninterrupted):
    assert [(record.iteration, record.split) for record in uninterrupted.validations] == [
        (5, None),
        (10, None),
        (12, "validation"),
        (12, "test"),
    ]


@pytest.mark.parametrize("checkpoint_format", ["torch_dist", "torch"])
def test_a_killed_run_resumes_with_the_losses_of_an_uninterrupted_one(run, uninterrupted, checkpoint_format, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    resuming = with_flags(run, *save_to(checkpoint, checkpoint_format), "--load", str(checkpoint))
    killed = resuming.kill_at(SAVED_AT + 2, tmp_path / "killed")
    assert killed.iterations[-1].iteration == SAVED_AT + 2
    resumed = resuming.complete(tmp_path / "resumed")
    assert min(resumed.losses) == SAVED_AT + 1
    assert_same(resumed, uninterrupted)
    assert resumed.validations[-2:] == uninterrupted.validations[-2:]


@pytest.mark.parametrize("sizes", [{"tensor_parallel": 2}, {"pipeline_parallel": 2}, {"data_parallel": 2}], ids=str)
def test_a_checkpoint_continues_at_another_parallel_size(run, saved, sizes, tmp_path):
    reference, checkpoint = saved
    loading = ("--load", str(checkpoint), "--ckpt-step", str(SAVED_AT))
    log = replace(with_flags(run, *WITHOUT_DROPOUT, *loading), **sizes).complete(tmp_path)
    assert_same(log, reference, PRINTED)


def test_the_distributed_optimizer_takes_the_same_steps(run, saved, tmp_path):
    reference, _ = saved
    distributed = with_flags(run, *WITHOUT_DROPOUT, "--use-distributed-optimizer")
    assert_same(replace(distributed, data_parallel=2).complete(tmp_path), reference, PRINTED)


@pytest.mark.parametrize("checkpoint_format", ["torch_dist", "torch"])
def test_the_distributed_optimizer_resumes(run, checkpoint_format, tmp_path):
    # In bfloat16: Megatron-Core cannot load a distributed optimizer whose main parameters are views of the model's.
    saving = with_flags(run, "--bf16", "--use-distributed-optimizer", *save_to(tmp_path / "checkpoint", checkpoint_format))
    distributed = replace(saving, data_parallel=2)
    reference = distributed.complete(tmp_path / "uninterrupted")
    # Format torch does not heed --ckpt-step.
    (tmp_path / "checkpoint" / "latest_checkpointed_iteration.txt").write_text(str(SAVED_AT))
    resuming = with_flags(distributed, "--load", str(tmp_path / "checkpoint"))
    assert_same(resuming.complete(tmp_path / "resumed"), reference)


def test_half_precision_learns(run, tmp_path):
    log = with_flags(run, "--bf16").complete(tmp_path)
    assert log.losses[ITERATIONS] < log.losses[1] - 0.3


def test_a_run_that_must_fail_shows_why(run, tmp_path):
    assert "NoSuchTokenizer" in with_flags(run, "--tokenizer-type", "NoSuchTokenizer").fail(tmp_path)
