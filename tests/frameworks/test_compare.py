"""``compare`` reads a run of Megatron-LM alike from its log and from its TensorBoard folder."""

import pytest

from megatron_nca.cli.runs.reading import read_run
from megatron_nca.rehearsal.megatron_lm import Run
from tests.frameworks.test_megatron_lm import ENTRY, EXACT

pytestmark = pytest.mark.slow


def test_log_and_events_of_a_run_say_the_same(checkout, corpus, tmp_path):
    board = ("--tensorboard-dir", str(tmp_path / "board"), "--tensorboard-log-interval", "1")
    Run(checkout, (*EXACT, "--data-path", ENTRY, str(corpus), "--train-iters", "24", *board)).complete(tmp_path)
    log, events = read_run(tmp_path / "rank0.log"), read_run(tmp_path / "board")
    assert log.nca_tokens == events.nca_tokens > 0
    assert log.plan == events.plan
    assert [point[:2] for point in events.validation] == [point[:2] for point in log.validation]
    losses = {point[:2]: point.loss for point in events.training}
    assert all(losses[point[:2]] == pytest.approx(point.loss, rel=1e-5) for point in log.training[:1] + log.training[2:])
