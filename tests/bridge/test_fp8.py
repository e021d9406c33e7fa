"""Bridge's own ``pretrain`` in Transformer Engine's layers, under the mixed precisions of its recipes, killed and resumed."""

import importlib.metadata

import pytest

from megatron_nca.rehearsal.extension import loading
from tests.bridge.test_pretrain import STEPS, SWITCH, launch, loss

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not loading.available(), reason="Transformer Engine's Python is not installed; make test-te brings it"),
]

PLAIN = "bf16_mixed"
HISTORIES = {
    "bf16_with_fp8_delayed_scaling_mixed": "32 FP8 histories cleared, scales kept",
    "bf16_with_fp8_current_scaling_mixed": "no FP8 history to clear",
    "bf16_with_fp8_subchannel_scaling_mixed": "no FP8 history to clear",
}
UNSEEN = "train.eval_iters=0"
"""Transformer Engine takes what it sees in validation into its histories, which a resumed run has not seen."""
NEAR = 0.02
"""How far FP8's losses may be from BF16's."""


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """What a precision's run printed, and its steps; made once."""
    made = {}

    def run(precision):
        if precision not in made:
            status, printed, steps = launch(tmp_path_factory.mktemp(precision), corpus, "--precision", precision, UNSEEN)
            assert status == 0, printed
            made[precision] = printed, steps
        return made[precision]

    return run


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    monkeypatch.setenv("NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE", "1")


@pytest.mark.parametrize("precision", HISTORIES)
def test_a_recipes_precision_passes_the_switch_near_its_bf16_losses(whole, precision):
    printed, steps = whole(precision)
    _, plain = whole(PLAIN)
    [line] = [line for line in printed.splitlines() if "switch to text after" in line]
    assert line.endswith(HISTORIES[precision])
    assert max(steps) == STEPS
    assert steps != plain, "it computes in FP8"
    assert {step: loss(steps, step) for step in steps} == pytest.approx({step: loss(plain, step) for step in plain}, rel=NEAR)


RESUMED = {"bf16_with_fp8_current_scaling_mixed": 1e-3}
"""How far a resumed run may be from one that was not, if at all: a checkpoint keeps weights without the scales by which they
were quantised, and current scaling finds slightly other ones. A run of text alone resumes no closer."""

if tuple(map(int, importlib.metadata.version("megatron-bridge").split(".")[:2])) >= (0, 6):
    # Of 0.6 and Transformer Engine 2.17 the same is true of delayed scaling.
    RESUMED["bf16_with_fp8_delayed_scaling_mixed"] = 2e-3


@pytest.mark.parametrize("precision", HISTORIES)
def test_killed_in_both_phases_it_ends_with_the_same_losses(whole, precision, corpus, tmp_path):
    _, expected = whole(precision)
    for die_after in (7, 13, None):
        options = ["--die-after", str(die_after)] if die_after else []
        status, printed, steps = launch(tmp_path / "killed", corpus, "--precision", precision, *options, UNSEEN)
        assert (status == 0) == (die_after is None), printed
        rates, their_rates = ({step: rate for step, (_, rate) in run.items() if step in steps} for run in (steps, expected))
        assert rates == their_rates
        losses, their_losses = ({step: loss(run, step) for step in steps} for run in (steps, expected))
        assert losses == pytest.approx(their_losses, rel=RESUMED.get(precision, 0), abs=0)
    assert max(steps) == STEPS
    assert min(steps) == SWITCH + 1
