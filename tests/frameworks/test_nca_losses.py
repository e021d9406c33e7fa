"""Loss of NCA and text samples apart, and validation on NCA, in Megatron-LM's own training loop."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from megatron_nca.rehearsal.megatron_lm import Run
from tests.frameworks.test_context_parallel import PER_TOKEN

pytestmark = pytest.mark.slow

ENTRY = "nca:grid=4,colors=3,gzip=none,trajectory=64"
ITERATIONS = 10
PRINTED = 1e-5
NUMBER = r"([\d.E+-]+)"


def make(checkout, *flags):
    exact = ("--hidden-dropout", "0", "--attention-dropout", "0", "--train-iters", str(ITERATIONS))
    return Run(checkout, flags=(*exact, *flags))


def with_flags(run, *flags):
    return replace(run, flags=(*run.flags, *flags))


def printed(run, folder, pattern):
    """The numbers that rank 0 printed in lines like ``pattern``."""
    log = run.complete(folder)
    output = (folder / "rank0.log").read_text()
    return log, [tuple(map(float, match)) for match in re.findall(pattern, output)]


SAVED_AT = 2
WORLDS = {"TP=2": {"tensor_parallel": 2}, "PP=2": {"pipeline_parallel": 2}, "DP=2": {"data_parallel": 2}}


def elsewhere(run, folder, pattern, worlds=WORLDS):
    """What a run prints in other worlds from its checkpoint on: Megatron draws a model's first weights differently in each."""
    for name, world in worlds.items():
        checkpoint = folder / name / "checkpoint"
        shutil.copytree(folder / "checkpoint", checkpoint)
        (checkpoint / "latest_checkpointed_iteration.txt").write_text(str(SAVED_AT))
        load = ("--load", str(checkpoint))
        yield name, printed(replace(with_flags(run, *load), **world), folder / name, pattern)[1]


def saving(folder):
    return ("--save", str(folder / "checkpoint"), "--save-interval", str(SAVED_AT), "--ckpt-format", "torch_dist")


APART = rf"megatron-nca: iteration (\d+) \| nca loss: {NUMBER} \| text loss: {NUMBER}"


def test_a_mixing_batch_reports_both_losses_in_every_world(checkout, corpus, tmp_path):
    run = make(checkout, "--data-path", "0.5", ENTRY, "0.5", str(corpus), "--micro-batch-size", "2")
    log, alone = printed(with_flags(run, *saving(tmp_path)), tmp_path / "alone", APART)
    assert [line[0] for line in alone] == list(range(1, ITERATIONS + 1))
    together = [(log.losses[int(iteration)], *sorted(apart)) for iteration, *apart in alone if int(iteration) in log.losses]
    assert len(together) >= ITERATIONS - 1
    assert all(low < loss < high for loss, low, high in together)
    for name, losses in elsewhere(run, tmp_path, APART):
        assert np.array(losses) == pytest.approx(np.array(alone[SAVED_AT:]), abs=PRINTED), name


def test_a_pure_phase_reports_no_second_loss(checkout, corpus, tmp_path):
    run = make(checkout, "--data-path", f"{ENTRY},tokens=2560", str(corpus))
    _, apart = printed(run, tmp_path, APART)
    assert not apart


def test_a_ramp_reports_both_losses_while_it_lasts(checkout, corpus, tmp_path):
    # 2,048 tokens are 4 batches of 8 samples of 64 tokens, and so is the ramp.
    run = make(checkout, "--data-path", f"{ENTRY},tokens=2048,ramp=2048", str(corpus))
    _, apart = printed(run, tmp_path, APART)
    assert [line[0] for line in apart] == [5, 6, 7, 8]


VALIDATION = (
    rf"validation at iteration (\d+) \| NCA of held-out rules, .* \| loss: {NUMBER} \| next-frame cell accuracy: {NUMBER}"
    rf" \| by frames seen: 1: {NUMBER}, 2: {NUMBER}, 4: {NUMBER}"
)


def test_validation_on_nca_is_megatrons_own_where_megatron_validates_on_nca(checkout, tmp_path):
    run = make(checkout, "--data-path", ENTRY, "--nca-valid", "--eval-iters", "2", "--eval-interval", str(ITERATIONS))
    _, ours = printed(run, tmp_path, VALIDATION)
    megatrons = re.findall(rf"validation loss at .*lm loss value: {NUMBER}", (tmp_path / "rank0.log").read_text())
    assert ours[0][1] == pytest.approx(float(megatrons[0]), rel=1e-6)


def test_validation_on_nca_is_the_same_in_every_world(checkout, corpus, tmp_path):
    # By the label, since the mean over a sequence's ranks is another mean where labels are left out of the loss.
    flags = ("--nca-valid", "4", "--eval-interval", "5", "--micro-batch-size", "2", "--lr", "5e-3", PER_TOKEN)
    worlds = {**WORLDS, "CP=2": {"context_parallel": 2}}
    run = make(checkout, "--data-path", f"{ENTRY},tokens=4096", str(corpus), *flags)
    _, alone = printed(with_flags(run, *saving(tmp_path)), tmp_path / "alone", VALIDATION)
    assert [line[0] for line in alone[:2]] == [5, 10]
    # Three colours: a third of the cells is right by chance, more once the model has learned what is frequent.
    assert all(0.3 < accuracy <= 1 for accuracy in alone[0][2:])
    for name, lines in elsewhere(run, tmp_path, VALIDATION, worlds):
        # A cell of a near tie may fall the other way where sums are taken in another order.
        assert np.array(lines) == pytest.approx(np.array(alone), abs=2e-2), name
        assert [line[1] for line in lines] == pytest.approx([line[1] for line in alone], abs=PRINTED), name


def test_it_writes_scalars(checkout, corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = ("--nca-valid", "1", "--eval-interval", "5", "--tensorboard-dir", str(tmp_path / "board"))
    run = make(checkout, "--data-path", "0.5", ENTRY, "0.5", str(corpus), *flags)
    run.complete(tmp_path)
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    assert [event.step for event in board.Scalars("nca/loss")] == list(range(1, ITERATIONS + 1))
    assert [event.step for event in board.Scalars("nca/valid-loss")][:2] == [5, 10]
    assert {"text/loss", "nca/valid-cell-accuracy", "nca/valid-cell-accuracy-after-2-frames"} <= set(board.Tags()["scalars"])


def test_it_is_refused_where_nothing_is_validated(checkout, corpus, tmp_path):
    run = make(checkout, "--data-path", f"{ENTRY},tokens=2560", str(corpus), "--nca-valid", "--eval-iters", "0")
    assert "--nca-valid runs beside the validation of text, and --eval-iters is 0" in run.fail(tmp_path)
