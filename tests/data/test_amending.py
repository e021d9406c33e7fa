"""Whole histories of runs, against a counter that knows nothing of the schedule."""

import json
import os
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_nca.data.amending import Amendment, amend, history_of, replay
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.data.history import History, Reading
from megatron_nca.data.writing import write_words
from megatron_nca.errors import CurriculumError, NCAError

SEQUENCE = 128


def read(words):
    return read_blend((tuple(words.split()), None))


def begun(words, samples=1000, batch=8):
    return plan_training(read(words), SEQUENCE, samples, BatchBoundaries(batch))


def amended(plan, words, begin, samples=2000, batch=8, **more):
    return amend(plan, Amendment(read(words), begin, more.pop("blended", {})), samples, BatchBoundaries(batch, begin), **more)


def names(plan):
    return [source.name for source in plan.sources]


def test_every_source_goes_on_at_its_next_unread_sample():
    plan = amended(begun("phase:tokens=1M 0.7 /a 0.3 /b phase: /b"), "phase: 0.25 /a 0.25 /b 0.5 /c", 200)
    assert names(plan) == ["/a", "/b", "/c"]
    assert plan.schedule.reached(200) == (140, 60, 0)
    assert plan.schedule.reached(400) == (190, 110, 100)
    assert {plan.schedule.locate(position) for position in range(200, 204)} >= {(0, 140), (2, 0)}


def test_a_source_that_is_left_out_and_comes_back_goes_on():
    plan = amended(begun("phase:tokens=1M 0.5 /a 0.5 /b phase: /b"), "phase: /b", 100)
    plan = amended(plan, "phase: 0.5 /a 0.5 /c", 300)
    assert names(plan) == ["/a", "/b", "/c"]
    assert plan.schedule.reached(500) == (150, 250, 100)


def test_phases_of_an_amendment_are_counted_from_it_and_end_on_batches():
    plan = amended(begun("phase: /a"), "phase:tokens=12800 /a phase:batch=4 /b", 204)
    assert [(phase.begin, phase.end) for phase in plan.phases] == [(204, 308)]
    assert [plan.batches.size_at(position) for position in (204, 307, 308)] == [8, 8, 4]


def test_members_of_a_blend_of_megatrons_go_on_where_it_left_them():
    plan = begun("nca:tokens=1280 0.7 /a 0.3 /b")
    assert plan.text_is_one
    after = amended(plan, "phase: 0.5 /b 0.5 /c", 200, blended={"/a": ((900,), 130), "/b": ((400,), 54)})
    assert names(after) == ["nca:tokens=1280", "/a + /b", "/b", "/c"]
    assert after.schedule.reached(300) == (16, 184, 54 + 50, 50)
    assert after.schedule.counts(300) == (16, 184, 50, 50), "what the blend gave stays the blend's"
    history = history_of(after, None, {"/a": ((900,), 130), "/b": ((400,), 54)})
    assert history.readings[2] == Reading(("/b",), asked=(400, 54 + 900))


def test_a_single_text_of_megatrons_is_read_on():
    assert names(amended(begun("nca:tokens=1280 /a"), "phase: 0.5 /a 0.5 /b", 200)) == ["nca:tokens=1280", "/a", "/b"]


def test_nca_goes_on_in_its_own_stream_and_another_layout_gets_a_fresh_one():
    plan = begun("0.5 nca:grid=4 0.5 /a")
    same = amended(plan, "0.1 nca:grid=4 0.9 /a", 100)
    assert same.schedule.reached(100) == (50, 50)
    other = amended(plan, "0.1 nca:grid=4,trajectory=128 0.9 /a", 100)
    assert [source.stream for source in other.sources if source.is_nca] == [0, 1]


def test_a_text_that_has_moved_is_known_by_what_it_is():
    plan = amended(begun("phase: /a"), "phase: 0.5 /new/a 0.5 /b", 100, moved={"/new/a": "/a", "/b": "/b"}.get)
    assert [(source.prefixes, source.names) for source in plan.sources] == [(("/new/a",), ("/a",)), (("/b",), ("/b",))]
    assert write_words(plan.named_curriculum) == ("phase:", "0.5", "/a", "0.5", "/b")


SWITCHES = [
    ("nca:tokens=12800 /a", "phase: 0.5 /a 0.5 /b", 200, 104, "behind the switch it stays where it was"),
    ("nca:tokens=12800 /a", "phase: 0.5 /a 0.5 /b", 48, 48, "text from now on is a switch now"),
    ("nca:tokens=12800 /a", "nca:tokens=2560 /a", 48, 72, "and a longer or shorter NCA phase moves it"),
    ("nca:tokens=12800 /a", "phase: 0.5 /a 0.5 /b", 104, 104, "at the switch it is still to be done"),
    ("phase: /a", "nca:tokens=2560 /a", 48, None, "NCA behind text is no leading phase"),
    ("0.5 nca: 0.5 /a", "phase: /a", 48, None, "nor is a blend of both"),
    ("nca:", "phase: /a", 48, 48, "NCA alone was a leading phase"),
]


@pytest.mark.parametrize(("before", "after", "begin", "switch", "why"), SWITCHES)
def test_the_switch_of_an_amended_run(before, after, begin, switch, why):
    assert amended(begun(before), after, begin).switch == switch, why


def test_what_was_asked_for_stays_and_more_lies_behind_it():
    words = "phase:tokens=12800 /b phase: 0.5 /a 0.5 /b"
    first = history_of(begun(words, samples=204))
    assert [reading.asked for reading in first.readings] == [(154,), (50,)]
    longer = history_of(begun(words, samples=304), first)
    assert [reading.asked for reading in longer.readings] == [(154, 204), (50, 100)]
    assert history_of(begun(words, samples=110), longer).readings == longer.readings


WRONG = [
    ("phase: /a /b", "texts without weights"),
    ("phase: 0.5 /a", None),
    ("phase:tokens=128 /a", "nothing follows this phase"),
    ("phase: 0.5 /a 0.5 /x", "which stands there too"),
    ("phase: 0.5 /a 0 /b", "a weight must be positive"),
]


@pytest.mark.parametrize(("words", "problem"), WRONG)
def test_a_wrong_amendment_is_refused(words, problem):
    moved = {"/a": "/a", "/x": "/a"}
    if problem is None:
        assert amended(begun("phase: /a"), words, 100).schedule.reached(200) == (200,)
        return
    with pytest.raises(NCAError, match=problem):
        amended(begun("phase: /a"), words, 100, moved=lambda prefix: moved.get(prefix, prefix))


# Random histories.

HISTORIES = int(os.environ.get("MEGATRON_NCA_HISTORIES", "400"))
"""Each of up to five data paths; thousands where they are asked for."""

TEXTS = ["/a", "/b", "/c", "/d"]
MEMBERS = [*TEXTS, "nca:grid=4", "nca:grid=4,colors=3", "nca:grid=4,trajectory=128"]


@st.composite
def data_paths(draw, batches=True):
    words = []
    phases = draw(st.integers(0, 3))
    for place in range(phases + 1):
        keys = []
        if place < phases:
            keys.append(f"tokens={draw(st.integers(1, 60 * SEQUENCE))}")
            if draw(st.booleans()):
                keys += [f"ramp={draw(st.integers(0, 40 * SEQUENCE))}", f"floor=0.{draw(st.integers(0, 9))}"]
        if batches and draw(st.booleans()):
            keys.append(f"batch={draw(st.integers(1, 12))}")
        words.append("phase:" + ",".join(keys))
        for member in draw(st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=4, unique=True)):
            words += [f"{draw(st.integers(1, 50)) / 10:g}", member]
    return " ".join(words)


class Counting:
    """Reads positions one by one, as a loader does, and believes nothing."""

    def __init__(self):
        self.read = Counter()

    def until(self, plan, begin, end):
        for position in range(begin, end):
            source, index = plan.schedule.locate(position)
            assert index == self.read[source], f"position {position}, {plan.sources[source].name}: a gap or a repeat"
            self.read[source] += 1
        assert plan.schedule.reached(end) == tuple(self.read[number] for number in range(len(plan.sources)))


def what_a_blend_gave(plan, position):
    """Split what Megatron's blend of several texts has given among them, somehow."""
    given = {}
    for source, count in zip(plan.sources, plan.schedule.reached(position), strict=True):
        for place, name in enumerate(source.names if len(source.names) > 1 else ()):
            given[name] = ((2 * count,), (count + place) // len(source.names))
    return given


def record(history):
    """Through the plain values of a checkpoint."""
    return History.read(json.loads(json.dumps(history.state())))


@settings(max_examples=HISTORIES)
@given(data_paths(), st.lists(st.tuples(st.integers(0, 90), data_paths(), st.booleans()), max_size=4), st.integers(1, 16))
def test_any_history_reads_every_source_in_order_once(words, changes, batch):
    """Amendments at random positions, restarts with another batch size between them, each start from the record alone."""
    plan = begun(words, 5000, batch)
    history, counting, position = record(history_of(plan)), Counting(), 0
    for steps, path, restarts in changes:
        end = plan.batches.position_after(steps % 12) if restarts else position + steps
        end = max(end, position)
        counting.until(plan, position, end)
        position = end
        earlier = replay(history, SEQUENCE)
        assert earlier.schedule.reached(position) == plan.schedule.reached(position)
        blended = what_a_blend_gave(plan, position)
        plan = amended(earlier, path, position, position + 5000, batch + restarts, blended=blended)
        for number in range(len(earlier.sources), len(plan.sources)):
            counting.read[number] = blended.get(plan.sources[number].name, ((), 0))[1]
        history = record(history_of(plan, history, blended))
        assert all(plan.batches.round_up(phase.end) == phase.end for phase in plan.phases)
    counting.until(plan, position, position + 200)
    assert len({(source.names, source.stream, source.is_nca) for source in plan.sources if not source.is_nca}) == len(
        [source for source in plan.sources if not source.is_nca]
    )


@settings(max_examples=100)
@given(data_paths(), st.integers(0, 150), st.integers(1, 16), st.integers(1, 16))
def test_another_batch_size_leaves_the_past_alone(words, consumed, batch, other):
    plan = begun(words, 5000, batch)
    position = plan.batches.round_up(consumed)
    ended = [phase.end for phase in plan.phases if phase.end <= position]
    again = plan_training(read(words), SEQUENCE, 5000, BatchBoundaries(other, position), ended)
    assert [again.schedule.locate(n) for n in range(position)] == [plan.schedule.locate(n) for n in range(position)]
    assert all(again.batches.round_up(phase.end) == phase.end for phase in again.phases if phase.end > position)


@settings(max_examples=200)
@given(data_paths())
def test_a_data_path_written_out_is_read_back_as_the_same(words):
    first, second = (
        begun(words),
        plan_training(read_blend((write_words(read(words)), None)), SEQUENCE, 1000, BatchBoundaries(8)),
    )
    assert [first.schedule.locate(n) for n in range(300)] == [second.schedule.locate(n) for n in range(300)]
    assert write_words(second.curriculum) == write_words(first.curriculum)


DAMAGED = [
    {},
    {"segments": [], "readings": []},
    {"segments": None, "readings": []},
    {"segments": [{"begin": 0}], "readings": []},
    {"segments": [{"begin": "0", "words": ["/a"], "ends": [], "first": [0]}], "readings": []},
    {"segments": [{"begin": 0, "words": "/a", "ends": [], "first": [0]}], "readings": []},
]


@pytest.mark.parametrize("state", DAMAGED)
def test_a_damaged_history_is_refused(state):
    with pytest.raises(CurriculumError, match="the checkpoint's record of its curriculum is damaged"):
        History.read(state)
