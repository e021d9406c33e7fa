"""One run, from NCA to text, that a cluster kills again and again and resumes with another world size each time."""

import itertools
import random
from dataclasses import replace

import pytest

from megatron_nca.rehearsal.megatron_lm import Run
from tests.frameworks.test_megatron_lm import ENTRY, EXACT, PRINTED, SWITCH, our_lines, saving

pytestmark = pytest.mark.slow

ITERATIONS = 30
WORLDS = ({}, {"tensor_parallel": 2}, {"data_parallel": 2}, {"pipeline_parallel": 2})
BEFORE, AFTER = 5, 5
"""Kills on either side of the one at the boundary."""


def random_kills(seed):
    """Iterations at which the run is killed, in order; the boundary's is among them."""
    draw = random.Random(seed)
    before = draw.sample(range(2, SWITCH), BEFORE)
    after = draw.sample(range(SWITCH + 1, ITERATIONS), AFTER)
    return sorted([*before, SWITCH, *after])


def optimizer_flags(checkout):
    """The distributed optimizer where its checkpoints survive this.

    Megatron-LM 0.16.1 without the plugin goes on with other losses after the same changes of world size: a checkpoint of
    PP=2 that was itself resumed from DP=2 (--dist-ckpt-optim-fully-reshardable) does not hold the run's state.
    """
    return ("--use-distributed-optimizer",) if checkout.version < (0, 15, 0) else ()


def test_a_run_killed_eleven_times_in_changing_worlds_has_the_losses_of_one_that_was_not(checkout, corpus, tmp_path):
    data = ("--data-path", ENTRY, str(corpus), "--train-iters", str(ITERATIONS), "--eval-iters", "0")
    run = Run(checkout, flags=(*data, *EXACT, *optimizer_flags(checkout)))
    reference = run.complete(tmp_path / "whole").losses
    seen, positions = {}, {}

    def check(log, folder):
        """The losses are the reference's, each iteration stands at one position, and the switch is where it belongs."""
        for record in log.iterations:
            assert positions.setdefault(record.iteration, record.consumed_samples) == record.consumed_samples
        for iteration, loss in log.losses.items():
            assert loss == pytest.approx(reference.get(iteration, loss), abs=PRINTED), f"iteration {iteration} in {folder.name}"
        seen.update(log.losses)
        # The second line of a process may hold the mean of its first two losses.
        for before, record in itertools.pairwise(log.iterations[:2]):
            if record.loss is None and {before.iteration, record.iteration} <= reference.keys():
                mean = (reference[before.iteration] + reference[record.iteration]) / 2
                assert float(record.fields["lm loss"]) == pytest.approx(mean, abs=PRINTED), folder.name
                seen[record.iteration] = reference[record.iteration]
        first, last = log.iterations[0].iteration, log.iterations[-1].iteration
        switches = sum("switch to text" in line for line in our_lines((folder / "rank0.log").read_text()))
        assert switches == (first <= SWITCH + 1 <= last), folder.name

    kills = random_kills(seed=1)
    assert len(kills) == BEFORE + AFTER + 1
    worlds = itertools.cycle(WORLDS)
    for number, kill in enumerate(kills):
        folder = tmp_path / f"{number}-killed-at-{kill}"
        # Saved after every step or after every other one; the boundary is a multiple of both.
        kept = replace(saving(run, tmp_path / "checkpoint", interval=1 + number % 2), **next(worlds))
        check(kept.kill_after_saving(kill, folder) if kill == SWITCH else kept.kill_at(kill, folder), folder)
    last = tmp_path / "last"
    check(replace(saving(run, tmp_path / "checkpoint"), **next(worlds)).complete(last), last)

    assert set(reference) <= set(seen)
    assert sorted(positions) == list(range(1, ITERATIONS + 1))
