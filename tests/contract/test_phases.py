"""What every stack does alike with phases: of text, with batches of their own, changed in mid-run or made longer."""

import hashlib
from dataclasses import replace

import pytest

from tests.contract.machine import BATCH, ENTRY, SEQUENCE, STEPS, SWITCH_STEP, Launch
from tests.contract.records import SWITCH, without_record

OWN_STEPS = SWITCH // 4 + STEPS - SWITCH_STEP
"""Steps of a run of as many samples whose NCA phase has batches of four."""


def test_a_phase_with_a_batch_of_its_own_reads_the_same_samples_in_more_steps(stack, text, whole):
    launch = Launch((f"{ENTRY},batch=4", text), steps=OWN_STEPS)
    outcome = stack.launch(launch, save_at=(7, SWITCH // 4, 25))
    assert outcome.error is None
    assert list(outcome.rates) == [*range(0, SWITCH, 4), *range(SWITCH, STEPS * BATCH, BATCH)]
    assert outcome.samples == whole.samples
    assert outcome.crossed == [SWITCH]
    assert outcome.says("; phases end after iterations 20")
    for checkpoint in outcome.checkpoints.values():
        resumed = stack.launch(launch, checkpoint=checkpoint)
        assert resumed.error is None
        assert list(resumed.rates) == [consumed for consumed in outcome.rates if consumed >= checkpoint.consumed]
        assert resumed.samples.items() <= whole.samples.items()
        assert resumed.rates.items() <= outcome.rates.items()


def test_a_batch_that_does_not_divide_is_refused(stack, text):
    refused = stack.launch(Launch((f"{ENTRY},batch=6", text), steps=OWN_STEPS), until=1)
    assert "batch=6" in str(refused.error)
    assert "the nearest that fit are 4 or 8" in str(refused.error)


PHASES = "nca:tokens=2K,grid=8,colors=6,trajectory=64 phase:tokens=3K 0.7 A 0.3 B phase: 0.4 A 0.3 B 0.3 C"
SEEN = {}
DIGEST = "dbb26be5a29720d8cd35aacbf487d29247590e7df980d617527afa11133096ab"
"""Digest of all samples of that run, in order: real packages are driven each in a process of its own."""


def test_text_in_phases_is_the_same_on_every_stack(stack, path):
    outcome = stack.launch(Launch(path(PHASES)), save_at=(7, 13))
    assert outcome.error is None
    assert outcome.crossed == [32], "NCA ends there; between texts nothing is carried across"
    last = {name: values[STEPS] for name, values in outcome.scalars.items() if name.startswith("tokens/")}
    assert len(last) == 4, "every source has its own"
    assert sum(last.values()) == STEPS * BATCH * SEQUENCE
    assert SEEN.setdefault("phases", outcome.samples) == outcome.samples
    assert hashlib.sha256("".join(outcome.samples[n] for n in range(STEPS * BATCH)).encode()).hexdigest() == DIGEST
    assert len(set(outcome.samples.values())) == STEPS * BATCH
    for checkpoint in outcome.checkpoints.values():
        resumed = stack.launch(Launch(path(PHASES)), checkpoint=checkpoint)
        assert resumed.error is None
        assert resumed.samples.items() <= outcome.samples.items()


BEGUN = [
    "phase: 0.7 A 0.3 B",
    "0.5 nca:grid=8,colors=6,trajectory=64 0.3 A 0.2 B",
    "phase:tokens=2K 0.7 A 0.3 B phase: A",
]


@pytest.mark.parametrize("begun", BEGUN)
def test_a_data_path_changed_in_mid_run_loses_and_repeats_nothing(stack, path, begun):
    """Changed twice, a text added, with restarts between: over the whole history no sample comes twice."""
    change = {"amend_curriculum": True}
    first = stack.launch(Launch(path(begun)), save_at=(6,), until=6)
    assert first.error is None
    again = Launch(path("phase:tokens=3K 0.25 A 0.25 B 0.5 C phase: 0.5 A 0.5 C"))
    second = stack.launch(replace(again, options=change), checkpoint=first.checkpoints[6], save_at=(9, 12), until=12)
    assert second.error is None
    assert second.says("tokens) so far, ")
    # A restart needs no option, and one that still has it changes nothing.
    plain = stack.launch(again, checkpoint=second.checkpoints[9], until=12)
    kept = stack.launch(replace(again, options=change), checkpoint=second.checkpoints[9], until=12)
    assert plain.error is None
    assert kept.error is None
    assert plain.samples == kept.samples == {n: seen for n, seen in second.samples.items() if n >= 9 * BATCH}
    last = Launch(path("phase: 0.5 B 0.5 C"), options=change)
    third = stack.launch(last, checkpoint=second.checkpoints[12], save_at=(18,))
    assert third.error is None
    history = {**first.samples, **second.samples, **third.samples}
    assert sorted(history) == list(range(STEPS * BATCH))
    assert len(set(history.values())) == STEPS * BATCH
    assert SEEN.setdefault(begun, history) == history
    resumed = stack.launch(replace(last, options={}), checkpoint=third.checkpoints[18])
    assert resumed.samples == {n: seen for n, seen in third.samples.items() if n >= 18 * BATCH}


@pytest.mark.parametrize(("begun", "changed"), [(",batch=4", ""), ("", ",batch=4")])
def test_a_changed_data_path_beside_a_batch_of_a_phases_own_ends_where_it_should_or_is_refused(stack, path, begun, changed):
    """Where the stack counts its steps before it knows of both, the run would end at another sample."""
    first = stack.launch(Launch(path(f"phase:tokens=2K{begun} A phase: B")), save_at=(10,), until=10)
    assert first.error is None
    change = Launch(path(f"phase:tokens=2K{changed} 0.5 A 0.5 C phase: C"), options={"amend_curriculum": True})
    second = stack.launch(change, checkpoint=first.checkpoints[10])
    if stack.stack.name in ("Megatron-LM", "Megatron-Bridge"):
        assert "data path: batch=4 of 'phase:tokens=2" in str(second.error)
        assert "counts the run's steps before it reads the checkpoint" in str(second.error)
        assert not second.samples
        return
    assert second.error is None
    history = {**first.samples, **second.samples}
    assert sorted(history) == list(range(len(history)))
    assert len(set(history.values())) == len(history)
    assert len(first.rates) + len(second.rates) == STEPS


def test_a_run_that_was_begun_without_us_is_changed_after_one_start_with_its_own_data_path(stack, path):
    first = stack.launch(Launch(path("phase: 0.7 A 0.3 B")), save_at=(6,), until=6)
    plain = without_record(stack, first.checkpoints[6])
    change = Launch(path("phase: 0.5 A 0.5 C"), options={"amend_curriculum": True})
    refused = stack.launch(change, checkpoint=plain)
    assert "holds no record, which does not tell what each source has given" in str(refused.error)
    taken_over = stack.launch(Launch(path("phase: 0.7 A 0.3 B")), checkpoint=plain, save_at=(7,), until=7)
    assert taken_over.error is None
    changed = stack.launch(change, checkpoint=taken_over.checkpoints[7])
    assert changed.error is None
    history = {**first.samples, **taken_over.samples, **changed.samples}
    assert sorted(history) == list(range(STEPS * BATCH))
    assert len(set(history.values())) == STEPS * BATCH


def test_the_launch_that_first_brings_the_plugin_cannot_change_the_data_path_too(stack, path):
    first = stack.launch(Launch(path("phase: 0.7 A 0.3 B")), save_at=(6,), until=6)
    options = {"amend_curriculum": True, "resume_as": "after-switch"}
    both = stack.launch(
        Launch(path("phase: 0.5 A 0.5 C"), options=options), checkpoint=without_record(stack, first.checkpoints[6])
    )
    assert "holds no record, which does not tell what each source has given; start once with the run's own" in str(both.error)
    assert "\n" not in str(both.error)
    assert not both.samples


@pytest.mark.parametrize("begun", ["phase: 0.7 A 0.3 B", "no record", "no checkpoint"])
def test_a_change_without_a_word_of_ours_is_refused_at_the_start(stack, path, begun):
    """Megatron would read such a data path from its first sample, whatever the run has read."""
    checkpoint = None
    if begun != "no checkpoint":
        first = stack.launch(Launch(path("phase: 0.7 A 0.3 B")), save_at=(6,), until=6)
        checkpoint = first.checkpoints[6] if begun != "no record" else without_record(stack, first.checkpoints[6])
    plain = stack.launch(Launch(path("0.5 A 0.5 C"), options={"amend_curriculum": True}), checkpoint=checkpoint)
    assert stack.stack.option("amend_curriculum", True) in str(plain.error)
    assert "write phase: before it, as in phase: 0.7 A 0.3 B" in str(plain.error)
    assert "\n" not in str(plain.error)
    assert not plain.samples


def test_another_data_path_is_refused_without_the_option(stack, path):
    first = stack.launch(Launch(path("phase: 0.7 A 0.3 B")), save_at=(6,), until=6)
    refused = stack.launch(Launch(path("phase: 0.5 A 0.5 B")), checkpoint=first.checkpoints[6])
    assert "was written under another curriculum" in str(refused.error)
    assert stack.stack.option("amend_curriculum", True) in str(refused.error)


@pytest.mark.parametrize(
    "words",
    [
        "phase: A",
        "phase: 0.7 A 0.3 B",
        "phase:tokens=2K 0.7 A 0.3 B phase: 0.5 A 0.5 B",
        "nca:tokens=2K,grid=8,colors=6,trajectory=64 A",
    ],
)
def test_a_longer_run_keeps_the_order_and_repeats_nothing(stack, path, words):
    first = stack.launch(Launch(path(words), steps=12), save_at=(6,))
    longer = stack.launch(Launch(path(words), steps=STEPS), checkpoint=first.checkpoints[6])
    assert longer.error is None
    history = {**first.samples, **{n: seen for n, seen in longer.samples.items() if n >= 12 * BATCH}}
    assert longer.samples.items() >= {n: seen for n, seen in first.samples.items() if n >= 6 * BATCH}.items()
    assert len(set(history.values())) == STEPS * BATCH
