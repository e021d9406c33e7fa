"""Wrong phases and wrong amendments: each is refused with one line that names it."""

import pytest

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.errors import NCAError
from tests.data.test_amending import SEQUENCE, amended, begun

PHASES = [
    ("phase:tokens=0 /a phase: /b", "must be at least 1"),
    ("phase:tokens=-5 /a phase: /b", "is not a count"),
    ("phase:tokens=1.M5 /a phase: /b", "is not a count"),
    ("phase:tokens=1Q /a phase: /b", "is not a count"),
    ("phase:tokens=9999999999999T /a phase: /b", "is not a count|is too large"),
    ("phase:tokens=1M,tokens=2M /a phase: /b", "stands twice"),
    ("phase:tokens /a phase: /b", "is not key=value"),
    ("phase:token=1M /a phase: /b", "is no key"),
    ("phase:tokens=1M,batch=0 /a phase: /b", "must be at least 1"),
    ("phase:tokens=1M,batch=-8 /a phase: /b", "is not a (count|whole number)"),
    ("phase:tokens=1M,batch=8.5 /a phase: /b", "is not a (count|whole number)"),
    ("phase:tokens=1M,ramp=1M,floor=1.5 /a phase: /b", "is not a share"),
    ("phase:tokens=1M,ramp=1M,floor=5% /a phase: /b", "is not a share"),
    ("phase:tokens=1M,ramp=1M,floor=0.9999999999 /a phase: /b", "nine decimals"),
    ("phase:ramp=1M /a", "ramp"),
    ("phase: /a phase: /b", "tokens"),
    ("phase:tokens=1M phase: /b", "phase:tokens=1M"),
    ("phase:tokens=1M /a phase:", "phase:"),
    ("/a phase:tokens=1M /b", "/a"),
    ("phase:tokens=1M 0.7 /a /b phase: /b", "weight"),
    ("phase:tokens=1M 0.7 /a nan /b phase: /b", "a weight must be positive"),
    ("phase:tokens=1M -1 /a 2 /b phase: /b", "a weight must be positive"),
    ("phase:tokens=1M 0.7 phase: /b", "holds no data"),
    ("phase:tokens=128 /a", "nothing follows this phase"),
    ("phase:tokens=1M nca:tokens=1M phase: /b", "tokens"),
    ("phase:tokens=1M nca:grid=13 phase: /b", "does not divide the grid"),
    ("phase:tokens=1M nca:trajectory=8 phase: /b", "trajectory"),
]

AMENDMENTS = [
    ("phase: /a /b", "texts without weights"),
    ("phase: 0.5 /a 0 /b", "a weight must be positive"),
    ("phase:tokens=128 /a", "nothing follows this phase"),
    ("phase:tokens=1M 0.5 /a 0.5 /x phase: /b", "which stands there too"),
    ("phase:batch=0 /a", "must be at least 1"),
    ("phase: /a phase: /b", "tokens"),
]
MOVED = {"/x": "/a"}


@pytest.mark.parametrize(("words", "problem"), PHASES)
def test_a_wrong_phase_is_refused_with_one_line(words, problem):
    with pytest.raises(NCAError, match=problem) as refused:
        plan_training(read_blend((tuple(words.split()), None)), SEQUENCE, 10_000, BatchBoundaries(8))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("words", "problem"), AMENDMENTS)
def test_a_wrong_amendment_is_refused_with_one_line(words, problem):
    with pytest.raises(NCAError, match=problem) as refused:
        amended(begun("phase: /a"), words, 104, moved=lambda prefix: MOVED.get(prefix, prefix))
    assert "\n" not in str(refused.value)
