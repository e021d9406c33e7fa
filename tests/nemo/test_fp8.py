"""NeMo's own ``llm.pretrain`` in Transformer Engine's layers, in its recipes' FP8 precision, killed and resumed."""

import signal

import pytest

from megatron_nca.rehearsal.extension import loading
from tests.nemo.test_pretrain import STEPS, SWITCH, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not loading.available(), reason="Transformer Engine's Python is not installed; make test-te brings it"),
]
NEAR = 0.02
"""How far FP8's losses may be from BF16's."""


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """What a precision's run printed, and its losses; made once."""
    made = {}

    def run(precision):
        if precision not in made:
            done, losses = start(tmp_path_factory.mktemp("whole"), corpus, "--precision", precision)
            assert done.returncode == 0, done.stderr[-3000:]
            made[precision] = done.stdout, losses
        return made[precision]

    return run


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    monkeypatch.setenv("NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE", "1")


def test_the_recipes_precision_passes_the_switch_near_its_bf16_losses(whole):
    printed, losses = whole("bf16_with_fp8_mixed")
    _, plain = whole("bf16_mixed")
    [line] = [line for line in printed.splitlines() if "switch to text after" in line]
    assert line.endswith("16 FP8 histories cleared, scales kept")
    assert max(losses) == STEPS
    assert losses != plain, "it computes in FP8"
    assert losses == pytest.approx(plain, rel=NEAR)


def test_killed_in_both_phases_it_ends_with_the_same_losses(whole, corpus, tmp_path):
    _, expected = whole("bf16_with_fp8_mixed")
    for die_after in (7, 13, None):
        options = ["--die-after", str(die_after)] if die_after else []
        done, losses = start(tmp_path, corpus, "--precision", "bf16_with_fp8_mixed", *options)
        assert done.returncode == (-signal.SIGKILL if die_after else 0), done.stderr[-3000:]
        assert losses == {step: expected[step] for step in losses}
    assert max(losses) == STEPS
    assert min(losses) in (SWITCH, SWITCH + 1)
