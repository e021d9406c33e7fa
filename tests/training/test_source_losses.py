"""Sums of NCA's and text's losses, on tensors made here."""

from functools import partial

import pytest
import torch
from megatron.core import parallel_state

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.training.source_losses import MicroBatches, SourceLosses


def plan(*path, weights=None, samples=100):
    return plan_training(read_blend((list(path), weights)), 64, samples, BatchBoundaries())


def test_micro_batches_lie_in_the_run_as_megatrons_sampler_deals_them_out():
    steps = [MicroBatches(consumed_samples=32, size=2, rank=rank, ranks=2, number=2) for rank in range(2)]
    dealt = [[list(step.positions(number)) for number in range(2)] for step in steps]
    assert dealt == [[[32, 33], [36, 37]], [[34, 35], [38, 39]]]
    assert steps[0].positions(2) == steps[0].positions(0)


@pytest.mark.parametrize(
    ("path", "weights", "covered"),
    [
        (("nca:tokens=2560,grid=4", "/x"), None, []),
        (("nca:tokens=2560,ramp=2560,grid=4", "/x"), None, [5, 6, 7, 8, 9]),
        (("nca:grid=4", "/x"), [0.5, 0.5], list(range(12))),
        (("nca:grid=4",), None, []),
    ],
)
def test_steps_are_covered_where_both_are_in_play(path, weights, covered):
    losses = SourceLosses(plan(*path, weights=weights, samples=96))
    assert [step for step in range(12) if losses.covers(8 * step, 8)] == covered


@pytest.fixture
def last_stage(process_group):
    parallel_state.initialize_model_parallel()
    yield
    parallel_state.destroy_model_parallel()


def test_the_means_are_those_of_the_samples(last_stage, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    mixed = plan("nca:grid=4", "/x", weights=[0.5, 0.5])
    losses = SourceLosses(mixed)
    generator = torch.Generator().manual_seed(0)
    values, masks = (torch.rand(8, 64, generator=generator) for _ in range(2))
    masks = (masks > 0.5).float()
    step = MicroBatches(consumed_samples=16, size=4, rank=0, ranks=1, number=2)
    batches = iter(range(2))

    def forward_step():
        rows = slice(4 * next(batches), None)
        return values[rows][:4], partial(lambda mask, output: (output.view(-1) * mask.view(-1)).sum(), masks[rows][:4])

    losses.begin_step(step)
    watched = losses.watch(forward_step)
    for _ in range(2):
        output, loss_function = watched()
        loss_function(output)
    is_nca = torch.tensor([mixed.schedule.locate(16 + place)[0] == 0 for place in range(8)])
    expected = {
        name: ((values * masks)[rows].sum() / masks[rows].sum()).item()
        for name, rows in (("nca/loss", is_nca), ("text/loss", ~is_nca))
    }
    assert losses.report() == pytest.approx(expected)
    assert losses.report() == {}
