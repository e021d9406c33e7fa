"""What every stack does alike where the launch is another than the checkpoint's."""

from dataclasses import replace

import pytest

from megatron_nca.errors import CurriculumError
from tests.conftest import Tokenizer, write_text
from tests.contract.machine import BATCH, ENTRY, STEPS, Launch
from tests.contract.records import without_record


def another(launch, other_text, text_elsewhere):
    entry, text = launch.path
    return {
        "another phase": (replace(launch, path=(entry.replace("5000", "9000"), text)), "phases"),
        "another process": (replace(launch, path=(entry.replace("colors=3", "colors=4"), text)), "phases"),
        "another text": (replace(launch, path=(entry, other_text)), "texts"),
        "a second text": (replace(launch, path=(entry, text, other_text)), "weights of the text"),
        "another data seed": (replace(launch, seed=4321), "seed of the data"),
        "another tokenizer": (replace(launch, tokenizer=Tokenizer(vocab_size=200, eod=7)), "NCA tokens"),
        "another end of document": (replace(launch, tokenizer=Tokenizer(eod=8)), "NCA tokens"),
    }


KINDS = list(another(Launch(("nca:tokens=5000", "a")), "b", "c"))


@pytest.mark.parametrize("at", [5, 15])
@pytest.mark.parametrize("kind", KINDS)
def test_another_curriculum_is_refused_with_both_sides_in_the_stacks_words(stack, whole, launch, other_text, kind, at):
    other, words = another(launch, other_text, None)[kind]
    refused = stack.launch(other, checkpoint=whole.checkpoints[at])
    assert isinstance(refused.error, CurriculumError), refused.error
    message = str(refused.error)
    assert f"{words}:\n    checkpoint: " in message
    assert "\n    launch:     " in message
    assert stack.stack.option("override_curriculum", True) in message
    assert not refused.samples


def test_a_text_that_moved_is_the_same_text(stack, whole, launch, text, tmp_path):
    import shutil

    for ending in (".bin", ".idx"):
        shutil.copy(f"{text}{ending}", tmp_path / f"moved{ending}")
    resumed = stack.launch(replace(launch, path=(ENTRY, str(tmp_path / "moved"))), checkpoint=whole.checkpoints[15], until=17)
    assert resumed.error is None
    assert resumed.samples[15 * BATCH] == whole.samples[15 * BATCH]


def test_another_text_under_the_same_name_is_refused(stack, tmp_path):
    prefix = write_text(tmp_path / "text", 300)
    launch = Launch((ENTRY, prefix))
    whole = stack.launch(launch, until=12, save_at=(12,))
    write_text(tmp_path / "text", 310, seed=3)
    refused = stack.launch(launch, checkpoint=whole.checkpoints[12])
    assert "texts:\n    checkpoint: ('300 sequences" in str(refused.error).replace("[", "(")


@pytest.mark.parametrize("at", [5, 15])
def test_an_entry_that_was_forgotten_is_missed(stack, whole, text, at):
    refused = stack.launch(Launch((text,)), checkpoint=whole.checkpoints[at])
    assert isinstance(refused.error, CurriculumError)
    assert "this launch has no nca: entry in its training data" in str(refused.error)
    assert stack.stack.option("override_curriculum", True) in str(refused.error)
    assert not refused.samples


def test_an_entry_that_is_left_in_validation_alone_is_missed(stack, whole, text):
    refused = stack.launch(Launch((text,), valid=("nca:grid=4,colors=3,gzip=none",)), checkpoint=whole.checkpoints[15])
    assert "this launch has no nca: entry in its training data" in str(refused.error)


def test_a_checkpoint_without_a_record_must_be_placed(stack, whole, launch):
    plain = without_record(stack, whole.checkpoints[15])
    refused = stack.launch(launch, checkpoint=plain)
    assert "at 120 samples, was written without nca: entries" in str(refused.error)
    for where in ("before-switch", "after-switch"):
        assert stack.stack.option("resume_as", where) in str(refused.error)
    placed = {
        where: stack.launch(replace(launch, options={"resume_as": where}), checkpoint=plain)
        for where in ("before-switch", "after-switch")
    }
    assert placed["before-switch"].crossed == [15 * BATCH]
    assert placed["after-switch"].crossed == []
    assert placed["before-switch"].rates == placed["after-switch"].rates


OVERRIDE = {"override_curriculum": True}
PROCESS = "nca:tokens={},grid=4,colors=3,gzip=none,trajectory=64"


def test_an_override_in_a_phase_goes_on_with_the_launchs_curriculum(stack, whole, text):
    longer = Launch((ENTRY.replace("5000", "6000"), text), options=OVERRIDE)
    resumed = stack.launch(longer, checkpoint=whole.checkpoints[5])
    assert resumed.error is None
    assert resumed.crossed == [12 * BATCH]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ((PROCESS.format(8192),), "lies behind its switch to text"),
        (
            (PROCESS.format(7000),),
            "would go on at sample 8, so samples would be read twice",
        ),
        (
            (PROCESS.format(2500),),
            "would go on at sample 80, so samples would be left out",
        ),
        ((ENTRY, "nca:tokens=5000,domain=code,grid=4,gzip=none"), "lies behind its switch to text"),
    ],
)
def test_an_override_behind_the_switch_may_not_repeat_or_lose_samples(stack, whole, text, path, words):
    refused = stack.launch(Launch((*path, text), options=OVERRIDE), checkpoint=whole.checkpoints[15])
    assert isinstance(refused.error, CurriculumError), refused.error
    assert words in str(refused.error)
    assert not refused.samples


def test_smaller_batches_under_a_length_in_steps_are_refused_at_the_start(framework, whole, launch):
    refused = framework.launch(replace(launch, batch=4), checkpoint=whole.checkpoints[15])
    if framework.reads_checkpoint_first:
        assert "give" in str(refused.error)
        assert "156 in place of a number of steps" in str(refused.error)
    else:
        assert "give num_train_samples 156 in place" in str(refused.error)
    assert not refused.samples


def test_a_phase_that_has_ended_keeps_its_end_under_other_batches(framework, whole, launch):
    larger = replace(launch, batch=24, steps=STEPS // 3, in_samples=False)
    resumed = framework.launch(larger, checkpoint=whole.checkpoints[15], until=16)
    if framework.reads_checkpoint_first:
        assert resumed.error is None
        assert resumed.samples[15 * BATCH] == whole.samples[15 * BATCH]
        assert not any("phases end after" in line for line in resumed.lines)
    else:
        assert "checkpoint: after 80 samples\n  launch:     after 96 samples" in str(resumed.error)


def test_a_phase_ahead_ends_on_the_new_batches_and_says_after_which_iteration(framework, whole, launch):
    resumed = framework.launch(replace(launch, batch=16, steps=12), checkpoint=whole.checkpoints[5], until=7)
    assert resumed.error is None
    # 40 samples so far; Megatron-LM and Bridge count batches of 16 from there, NeMo from the start.
    counted = {True: "(samples 0 to 88)", False: "(samples 0 to 80)"}[framework.reads_checkpoint_first]
    assert resumed.says(counted)
    assert resumed.says(f"; phases end after iterations {8 if framework.reads_checkpoint_first else 5}")
