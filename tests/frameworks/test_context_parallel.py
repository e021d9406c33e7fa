"""A sequence on several ranks, from NCA to a blend of texts, with the losses of one rank.

From one checkpoint in the NCA phase on, since Megatron draws a model's first weights differently in each layout.
"""

from dataclasses import replace

import pytest

from megatron_nca.rehearsal.megatron_lm import Run
from tests.frameworks.test_megatron_lm import ENTRY, EXACT, PRINTED, our_lines, with_flags

pytestmark = pytest.mark.slow

ITERATIONS, SAVED_AT, SWITCH = 16, 5, 10
PER_TOKEN = "--calculate-per-token-loss"
"""Without it Megatron takes the mean over each context-parallel rank's labels, and then over the ranks: labels that are left
out of the loss, here a trajectory's first frame, change what the others weigh."""
EXPERTS = (
    *("--num-experts", "4", "--moe-router-topk", "2", "--moe-router-load-balancing-type", "none"),
    *("--moe-token-dispatcher-type", "alltoall", "--disable-bias-linear"),
)

LAYOUTS = {
    "CP=2": {"context_parallel": 2},
    "CP=2 DP=2": {"context_parallel": 2, "data_parallel": 2},
    "CP=2 TP=2": {"context_parallel": 2, "tensor_parallel": 2},
    "CP=2 PP=2": {"context_parallel": 2, "pipeline_parallel": 2},
}


@pytest.fixture
def run(checkout, corpus):
    data = ("--data-path", "1", ENTRY, "0.7", str(corpus), "0.3", str(corpus))
    return Run(checkout, flags=(*data, "--train-iters", str(ITERATIONS), *EXACT))


def one_rank(run, folder):
    """Losses of one rank, and the flags that go on from its checkpoint in the NCA phase."""
    checkpoint = str(folder / "checkpoint")
    saving = with_flags(run, "--save", checkpoint, "--save-interval", str(SAVED_AT), "--ckpt-format", "torch_dist")
    return saving.complete(folder / "alone").losses, ("--load", checkpoint, "--ckpt-step", str(SAVED_AT))


def assert_same_losses(run, folder, layouts):
    reference, loading = one_rank(run, folder)
    for name, layout in layouts.items():
        log = replace(with_flags(run, *loading), **layout).complete(folder / name)
        assert log.losses == pytest.approx({n: loss for n, loss in reference.items() if n in log.losses}, abs=PRINTED), name
        assert {SAVED_AT + 1, SWITCH, SWITCH + 1, ITERATIONS} <= log.losses.keys()
        assert "switch to text after 80 samples" in our_lines((folder / name / "rank0.log").read_text())[-1]


def test_the_losses_are_those_of_one_rank(run, tmp_path):
    assert_same_losses(with_flags(run, PER_TOKEN), tmp_path, LAYOUTS)


def test_with_a_loss_on_every_label_the_mean_over_ranks_is_the_mean_over_labels(run, tmp_path):
    every_label = replace(run, flags=tuple(f"{word},loss=all" if word == ENTRY else word for word in run.flags))
    assert_same_losses(every_label, tmp_path, {"CP=2": LAYOUTS["CP=2"]})


def test_experts_on_other_ranks(run, tmp_path):
    """From its weights alone: Megatron has other optimizers under expert parallelism and loads no checkpoint across them."""
    run = with_flags(run, PER_TOKEN, *EXPERTS)
    _, loading = one_rank(run, tmp_path)
    weights = with_flags(run, *loading, "--no-load-optim", "--no-load-rng", "--override-opt_param-scheduler")
    reference = weights.complete(tmp_path / "one").losses
    others = replace(weights, context_parallel=2, data_parallel=2, expert_parallel=2).complete(tmp_path / "four")
    assert others.losses == pytest.approx(reference, abs=PRINTED)
    assert {SAVED_AT + 1, SWITCH, SWITCH + 1, ITERATIONS} <= reference.keys()
    assert "switch to text after 80 samples" in our_lines((tmp_path / "four" / "rank0.log").read_text())[-1]
