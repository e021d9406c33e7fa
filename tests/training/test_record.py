import json

import pytest

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.data.run import Datasets
from megatron_nca.errors import CurriculumError
from megatron_nca.training.record import Record, differences

TOKENS, TEXT = "10,002 ids from 2 to 10,010, end of document 5, digest 0123", "9 sequences, 9 documents, index 4567"


def record(*prefixes, weights=None, sequence=128, seed=1, batch=8, consumed=0, tokens=TOKENS, texts=(TEXT,), samples=1000):
    plan = plan_training(read_blend((prefixes, weights)), sequence, samples, BatchBoundaries(batch))
    return Record.of(plan, Datasets(None, seed, tokens, texts), consumed, False)


BASE = record("nca:tokens=12800", "/a")

VERSION_1 = {
    "version": 1, "sequence_length": 128, "seed": 1, "phases": list(BASE.phases), "blended": [], "text": ["1"],
    "phase_ends": [104], "transition_done": False,
}  # fmt: skip


def test_it_is_read_as_it_was_written_through_any_format_of_plain_values():
    state = json.loads(json.dumps(BASE.state_dict()))
    assert Record.from_state_dict(state) == BASE
    assert state["version"] == 3


def test_it_tells_what_each_source_has_given():
    two = [record("nca:tokens=12800", "nca:tokens=1280,domain=code", "/a", consumed=n) for n in (0, 103, 104, 120, 500)]
    assert [one.given for one in two] == [(0, 0, 0), (103, 0, 0), (104, 0, 0), (104, 16, 0), (104, 16, 380)]
    assert [two[0].ends_until(n) for n in (0, 103, 104, 120)] == [(), (), (104,), (104, 120)]


def test_a_record_of_version_1_is_read_and_compared_in_what_it_holds():
    old = Record.from_state_dict(VERSION_1)
    assert (old.version, old.given, old.tokens, old.texts) == (1, None, None, None)
    assert differences(old, BASE) == []
    assert differences(old, record("nca:tokens=25600", "/a")) != []


@pytest.mark.parametrize(
    "same",
    [
        record("nca:tokens=12.8K", "/a"),
        record("nca:tokens=12800,domain=web,colors=10", "/a"),
        record("nca:tokens=12800", "/moved/elsewhere"),
        record("nca:tokens=12800", "/a", batch=16),
        record("nca:tokens=12800", "/a", samples=2000),
        record("nca:tokens=12800", "/a", texts=("",)),
    ],
)
def test_what_gives_the_same_samples_is_the_same_curriculum(same):
    assert differences(BASE, same) == []


@pytest.mark.parametrize(
    "other",
    [
        record("nca:tokens=25600", "/a"),
        record("nca:tokens=12800,colors=9", "/a"),
        record("nca:tokens=12800,domain=code", "/a"),
        record("nca:tokens=12800,loss=all", "/a"),
        record("nca:tokens=12800,ramp=12800", "/a"),
        record("nca:tokens=12800,rules=100", "/a"),
        record("nca:tokens=12800", "/a", sequence=256),
        record("nca:tokens=12800", "/a", seed=2),
        record("nca:tokens=12800", "/a", "/b", texts=(TEXT, TEXT)),
        record("nca:tokens=12800", "nca:domain=code", "/a", weights=[1.0, 0.1, 0.9]),
        record("nca:tokens=12800", "/a", tokens=TOKENS.replace("document 5", "document 7")),
        record("nca:tokens=12800", "/a", texts=("8 sequences, 8 documents, index 89ab",)),
    ],
)
def test_another_curriculum_differs_with_both_side_by_side(other):
    rows = differences(BASE, other)
    assert rows
    assert all("\n    checkpoint: " in row and "\n    launch:     " in row for row in rows)


@pytest.mark.parametrize("version", [0, 4, 99, "2", None, True])
def test_a_version_that_is_not_known_is_refused_by_number(version):
    with pytest.raises(CurriculumError, match=rf"has version {version!r}; this megatron-nca reads versions 1 to 3"):
        Record.from_state_dict({**BASE.state_dict(), "version": version})


@pytest.mark.parametrize("name", [name for name in BASE.state_dict() if name != "version"])
def test_a_record_that_lacks_a_part_is_damaged(name):
    state = BASE.state_dict()
    del state[name]
    with pytest.raises(CurriculumError, match=f"is damaged: it has no {name!r}"):
        Record.from_state_dict(state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phases", "nca:"), ("phases", [1]), ("phase_ends", ["8"]), ("phase_ends", [True]), ("seed", "1"), ("seed", 1.5),
        ("transition_done", 1), ("given", None), ("samples", None), ("texts", [None]), ("stream", 3),
    ],
)  # fmt: skip
def test_a_record_with_a_part_of_another_kind_is_damaged(name, value):
    with pytest.raises(CurriculumError, match=f"is damaged: {name!r} is "):
        Record.from_state_dict({**BASE.state_dict(), name: value})


@pytest.mark.parametrize("state", [[], "nca", 3])
def test_what_is_no_mapping_is_damaged(state):
    with pytest.raises(CurriculumError, match="is damaged: it is a"):
        Record.from_state_dict(state)
