import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.errors import CurriculumError, EntryError, NCAError

SEQUENCE = 128


def plan(prefixes, weights=None, samples=1000, batch=8):
    return plan_training(read_blend((prefixes, weights)), SEQUENCE, samples, BatchBoundaries(batch))


def sources(a_plan, begin, end):
    return {a_plan.schedule.locate(position)[0] for position in range(begin, end)}


def test_a_phase_comes_first_and_text_starts_at_its_sample_zero():
    made = plan(["nca:tokens=12800", "/text"])
    assert made.phases[0].end == 104, "100 samples, rounded up to batches of 8"
    assert sources(made, 0, 104) == {0}
    assert made.schedule.locate(104) == (1, 0)
    assert made.switch == 104


def test_phases_follow_each_other_as_they_stand():
    made = plan(["/text", "nca:tokens=2K,domain=code", "nca:tokens=3K"])
    assert [(phase.begin, phase.end) for phase in made.phases] == [(0, 16), (16, 40)]
    assert [made.schedule.locate(position) for position in (15, 16, 39, 40)] == [(0, 15), (1, 0), (1, 23), (2, 0)]


def test_a_phases_weight_is_not_used():
    made = plan(["nca:tokens=12800", "/a", "/b"], [50.0, 0.7, 0.3])
    assert made.curriculum.text_blend == (["/a", "/b"], [0.7, 0.3])
    assert sources(made, 104, 200) == {1}


def test_weights_are_read_where_a_word_of_ours_stands():
    old = plan(["nca:tokens=12800", "/a", "/b"], [1.0, 0.7, 0.3]).curriculum.text_blend
    assert plan(["nca:tokens=12800", "0.7", "/a", "0.3", "/b"]).curriculum.text_blend == old == (["/a", "/b"], [0.7, 0.3])
    assert plan(["1", "nca:tokens=12800", "0.7", "/a", "0.3", "/b"]).curriculum.text_blend == old


def test_an_entry_with_tokens_is_short_for_a_phase():
    short, long = plan(["nca:tokens=12800,ramp=1280", "/a"]), plan(["phase:tokens=12800,ramp=1280", "nca:", "phase:", "/a"])
    assert [short.schedule.locate(n) for n in range(300)] == [long.schedule.locate(n) for n in range(300)]
    assert (short.switch, short.curriculum.text_blend) == (long.switch, long.curriculum.text_blend) == (104, (["/a"], None))


def test_the_same_prefix_in_several_phases_is_one_source_read_on():
    made = plan(
        ["phase:tokens=12800", "0.75", "/a", "0.25", "/b", "phase:tokens=12800", "/b", "phase:", "0.5", "/a", "0.5", "/c"]
    )
    assert [source.name for source in made.sources] == ["/a", "/b", "/c"]
    assert [(phase.begin, phase.end) for phase in made.phases] == [(0, 104), (104, 208)]
    assert [made.schedule.counts(n) for n in (104, 208, 308)] == [(78, 26, 0), (78, 130, 0), (128, 130, 50)]
    assert made.schedule.locate(104) == (1, 26), "it goes on where the first phase left it"
    assert made.switch is None, "text is no NCA phase, so nothing is carried across"


def test_one_final_blend_of_text_is_megatrons_however_it_is_written():
    for words in (["nca:tokens=1M", "0.7", "/a", "0.3", "/b"], ["nca:tokens=1M", "phase:", "0.7", "/a", "0.3", "/b"]):
        made = plan(words)
        assert made.curriculum.text_is_one
        assert (made.sources[1].prefixes, made.sources[1].weights) == (("/a", "/b"), (0.7, 0.3))


def test_a_phase_of_text_fades_into_the_next():
    made = plan(["phase:tokens=12800,ramp=12800", "0.5", "/a", "0.5", "/b", "phase:", "/c"])
    assert made.schedule.counts(104) == (52, 52, 0)
    assert made.schedule.counts(204) == (77, 77, 50)
    assert made.schedule.counts(304) == (77, 77, 150)


def test_a_phases_batch_is_its_own():
    made = plan(["nca:tokens=12800,batch=3", "/a"])
    assert made.phases[0].end == 102
    assert [made.batches.size_at(position) for position in (0, 101, 102)] == [3, 3, 8]
    assert (made.batches.batches_until(102), made.batches.position_after(36)) == (34, 118)
    assert plan(["phase:tokens=1280", "/a", "phase:batch=5", "/b"]).batches.size_at(10**6) == 5


def test_iterations_are_counted_in_the_batches_of_their_phases():
    curriculum = read_blend((["nca:tokens=12800,batch=4", "/a"], None))
    made = plan_training(curriculum, SEQUENCE, 1000 * 8, BatchBoundaries(8), iterations=1000)
    assert made.samples == 100 + (1000 - 25) * 8


def test_nca_behind_text_is_a_phase_like_others():
    made = plan(["nca:tokens=12800", "phase:tokens=12800", "/a", "nca:tokens=12800,domain=code", "phase:", "/a"])
    assert made.switch == 104
    assert [source.name for source in made.sources] == ["nca:tokens=12800", "nca:tokens=12800,domain=code", "/a"]
    assert made.schedule.locate(312) == (2, 104)


def test_a_mixed_first_phase_has_no_switch():
    assert plan(["phase:tokens=12800", "0.5", "nca:", "0.5", "/a", "phase:", "/a"]).switch is None
    assert plan(["nca:tokens=12800", "nca:tokens=12800"], samples=200).switch is None


def test_an_everlasting_blend_has_no_switch():
    made = plan(["nca:", "/a"], [0.1, 0.9])
    assert made.switch is None
    assert made.schedule.counts(1000) == (100, 900)


def test_several_entries_share_the_final_blend():
    made = plan(["nca:tokens=12800", "nca:domain=code", "/a", "/b"], [1.0, 0.2, 0.5, 0.3])
    counts = made.schedule.counts(1104)
    assert counts == (104, 200, 800)


def test_a_ramp_hands_over_gradually_and_keeps_its_floor():
    made = plan(["nca:tokens=12800,ramp=12800,floor=0.25", "/a"])
    assert sources(made, 0, 104) == {0}
    half_way = made.schedule.counts(154)[0] - made.schedule.counts(104)[0]
    assert half_way == pytest.approx(50 * (1 + 0.625) / 2, abs=1)
    assert made.schedule.counts(604)[0] - made.schedule.counts(204)[0] == 100


def test_a_second_phase_has_all_its_tokens_of_what_the_first_leaves():
    made = plan(["nca:tokens=12800,floor=0.5", "nca:tokens=12800,domain=code", "/a"])
    second = made.phases[1]
    assert (second.begin, second.end) == (104, 304)
    assert made.schedule.counts(second.end)[1] == 100


def test_entries_of_one_process_do_not_repeat_each_others_samples():
    curriculum = read_blend((["nca:tokens=1M", "nca:tokens=1M,domain=code", "nca:tokens=2M", "nca:"], None))
    assert curriculum.streams == (0, 0, 1, 2)


def test_validation_holds_the_final_blend_only():
    curriculum = read_blend((["nca:tokens=1M", "nca:domain=code", "/a"], [1.0, 0.1, 0.9]))
    assert [entry.text for entry in curriculum.final().entries] == ["nca:domain=code"]
    assert read_blend((["nca:tokens=1M", "/a"], None)).final().entries == ()
    assert [entry.text for entry in read_blend((["nca:tokens=1M"], None)).final().entries] == ["nca:tokens=1M"]


def test_a_trillion_tokens_are_planned_like_a_million():
    made = plan(["nca:tokens=1T", "/a"], samples=10**10)
    assert made.switch == 10**12 // SEQUENCE
    assert made.schedule.locate(made.switch + 5) == (1, 5)


def test_the_plan_tells_itself_in_one_line():
    line = plan(["nca:tokens=12800,ramp=1280", "/a"]).describe()
    assert line == (
        "nca:tokens=12800,ramp=1280 for 13,312 tokens (samples 0 to 104, falling to 0 over 10 samples) -> "
        "/a (samples 104 to 1,000)"
    )


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 100), st.sampled_from(["0", "0.1", "0.5"])), max_size=3),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 32),
)
def test_phases_end_on_batches_and_their_entry_has_what_it_asked_for(phases, weights, batch):
    entries = [f"nca:tokens={samples * SEQUENCE},ramp={ramp},floor={floor}" for samples, ramp, floor in phases]
    final = [f"/{place}" for place in range(len(weights))]
    made = plan(entries + final, [1.0] * len(entries) + [float(weight) for weight in weights], 10**6, batch)
    for place, ((samples, _, _), phase) in enumerate(zip(phases, made.phases, strict=True)):
        given = made.schedule.counts(phase.end)[place]
        assert phase.end % batch == 0
        assert samples <= given
        assert made.schedule.counts(phase.end - batch)[place] < samples, "rounded up to the batch and to nothing else"


WRONG = [
    (["nca:", "/a"], None, "needs weights"),
    (["nca:", "nca:domain=code"], None, "needs weights"),
    (["nca:tokens=1M", "0.7", "/a", "/b"], None, "has no weight, others of its blend have one"),
    (["nca:tokens=1M", "/a", "0.3"], None, "stands where a dataset is expected"),
    (["nca:tokens=1M", "0.7", "0.3", "/a"], None, "follow each other"),
    (["nca:tokens=1M", "nan", "/a"], None, "positive and finite"),
    (["nca:tokens=1M", "-1", "/a"], None, "positive and finite"),
    (["nca:tokens=1M", "/a", "/b"], [1.0, float("inf"), 1.0], "positive and finite"),
    (["nca:batch=8"], None, "belongs to a phase"),
    (["nca:tokens=1M,batch=0", "/a"], None, "at least 1"),
    (["nca:tokens=1M,batch=2B", "/a"], None, "at most 1,000,000,000 sequences"),
    (["phase:"], None, "holds no data"),
    (["phase:tokens=1M", "phase:", "/a"], None, "holds no data"),
    (["phase:", "/a", "phase:", "/b"], None, "is followed by another phase, so it needs an end"),
    (["/a", "phase:", "/b"], None, "stands in no phase"),
    (["nca:tokens=1M", "/a", "phase:", "/b"], None, "stands in no phase"),
    (["phase:tokens=1M", "/a", "nca:tokens=1M", "/b"], None, "stands in no phase"),
    (["phase:token=1M", "/a"], None, "is no key of a phase; the keys are tokens, ramp, floor, batch"),
    (["phase:tokens=1M,tokens=2M", "/a"], None, "stands twice"),
    (["phase:tokens=1.5", "/a"], None, "not a count"),
    (["phase:tokens=0", "/a"], None, "at least 1"),
    (["phase:ramp=1M", "/a", "/b"], None, "give tokens=... too"),
    (["phase:floor=0.5", "/a"], None, "give tokens=... too"),
    (["phase:tokens=1M,floor=2", "/a", "phase:", "/b"], None, "from 0 to 1"),
    (["phase:tokens=1M,floor=1", "/a", "phase:", "/b"], None, "floor below 1"),
    (["phase:tokens=1M,ramp=1K", "/a"], None, "need something that follows"),
    (["phase:batch=x", "/a"], None, "not a count"),
    (["phase:a", "/a"], None, "write phase:key=value"),
    (["phase:tokens=1M", "/a", "/b", "phase:", "/a"], None, "mixes 2 texts .* needs weights"),
    (["phase:tokens=1M", "nca:", "/a", "phase:", "/b"], None, "needs weights"),
    (["phase:tokens=1M", "0.5", "/a", "/b", "phase:", "/b"], None, "has no weight"),
    (["phase:tokens=12800", "/a"], None, "nothing follows this phase"),
    (["nca:", "/a"], [0.0, 1.0], "must be positive"),
    (["nca:tokens=1M,ramp=1M"], None, "need something that follows"),
    (["nca:tokens=1M,floor=0.1"], None, "need something that follows"),
    (["nca:tokens=1M,floor=1", "/a"], None, "floor below 1"),
    (["nca:tokens=12800"], None, "nothing follows this phase"),
    (["nca:grid=64", "/a"], [0.5, 0.5], "at least"),
    (["nca:grid=16", "/a"], [0.5, 0.5], "a sequence of 128 tokens is shorter than 2 frames"),
]


@pytest.mark.parametrize(("prefixes", "weights", "remedy"), WRONG)
def test_entries_that_do_not_go_together_are_refused(prefixes, weights, remedy):
    with pytest.raises((EntryError, CurriculumError), match=remedy) as raised:
        plan(prefixes, weights)
    assert any(prefix in str(raised.value) for prefix in prefixes)
    assert "\n" not in str(raised.value)


WORDS = ["nca:", "nca:tokens=1M", "/a", "/b", "0.5", "nca:x=1", "phase:", "phase:tokens=1M", "phase:tokens=1K,ramp=1K,batch=3"]


@settings(max_examples=400)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), min_size=1))
def test_any_data_path_is_planned_or_refused_with_our_error(prefixes):
    try:
        made = plan(prefixes)
    except NCAError:
        return
    assert sum(made.schedule.counts(1000)) == 1000
    assert all(made.batches.round_up(phase.end) == phase.end for phase in made.phases)


def test_a_phase_of_very_many_sources_is_told_short():
    texts = [word for number in range(300) for word in (f"{1 + number % 7}", f"/text{number}")]
    told = plan(["phase:tokens=12800", *texts, "phase:", *texts]).describe()
    assert len(told) < 300
    assert told.startswith(
        "phase:tokens=12800 1 /text0 2 /text1 3 /text2 ... (300 sources) for 13,312 tokens (samples 0 to 104)"
    )
    assert "/text0 + /text1 + /text2 + 297 more (samples 104 to" in told
