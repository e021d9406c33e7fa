import json

import pytest

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.errors import CurriculumError
from megatron_nca.training.notes import check_note, ended_phases, make_note


def note(*prefixes, weights=None, sequence=128, seed=1, batch=8):
    plan = plan_training(read_blend((prefixes, weights)), sequence, 1000, BatchBoundaries(batch))
    return make_note(plan, seed, False)


BASE = note("nca:tokens=12800", "/a")


def test_a_note_is_plain_values():
    assert json.loads(json.dumps(BASE)) == BASE


@pytest.mark.parametrize(
    "same",
    [
        note("nca:tokens=12.8K", "/a"),
        note("nca:tokens=12800,domain=web,colors=10", "/a"),
        note("nca:tokens=12800", "/moved/elsewhere"),
        note("nca:tokens=12800", "/a", batch=16),
    ],
)
def test_what_gives_the_same_samples_is_the_same_curriculum(same):
    check_note(BASE, same, "--override")


@pytest.mark.parametrize(
    "other",
    [
        note("nca:tokens=25600", "/a"),
        note("nca:tokens=12800,colors=9", "/a"),
        note("nca:tokens=12800,domain=code", "/a"),
        note("nca:tokens=12800,loss=all", "/a"),
        note("nca:tokens=12800,ramp=12800", "/a"),
        note("nca:tokens=12800,rules=100", "/a"),
        note("nca:tokens=12800", "/a", sequence=256),
        note("nca:tokens=12800", "/a", seed=2),
        note("nca:tokens=12800", "/a", "/b"),
        note("nca:tokens=12800", "nca:domain=code", "/a", weights=[1.0, 0.1, 0.9]),
    ],
)
def test_another_curriculum_is_refused_with_both_side_by_side(other):
    with pytest.raises(CurriculumError, match=r"(?s)checkpoint: .*launch: .*give --override"):
        check_note(BASE, other, "--override")


def test_phases_that_have_ended_are_known():
    two = note("nca:tokens=12800", "nca:tokens=1280,domain=code", "/a")
    assert [ended_phases(two, consumed) for consumed in (0, 103, 104, 120)] == [(), (), (104,), (104, 120)]
    assert ended_phases(None, 500) == ()
