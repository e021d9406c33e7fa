"""What every stack does alike when it resumes, and with records that it cannot read."""

import copy
from dataclasses import replace

import pytest

from megatron_nca.errors import CurriculumError
from tests.contract.machine import BATCH, ENTRY, STEPS, SWITCH_STEP, Launch
from tests.contract.records import PLACES, SAVED, SWITCH, record_of


@pytest.mark.parametrize("place", PLACES)
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(stack, whole, launch, place):
    at = PLACES[place]
    resumed = stack.launch(launch, checkpoint=whole.checkpoints[at])
    assert resumed.error is None
    assert resumed.samples == {position: sample for position, sample in whole.samples.items() if position >= at * BATCH}
    assert resumed.rates == {position: rate for position, rate in whole.rates.items() if position >= at * BATCH}
    assert resumed.crossed == ([SWITCH] if at <= SWITCH_STEP else [])


@pytest.mark.parametrize("place", PLACES)
def test_the_rate_is_the_same_where_no_optimizer_or_scheduler_state_was_loaded(stack, whole, launch, place):
    at = PLACES[place]
    resumed = stack.launch(launch, checkpoint=whole.checkpoints[at], load_optimizer=False)
    assert resumed.error is None
    assert resumed.rates == {position: rate for position, rate in whole.rates.items() if position >= at * BATCH}


def test_another_rate_of_the_run_leaves_the_phases_their_own(stack, text):
    own = Launch((ENTRY, text), options={"lr": 2.05e-5})
    whole = stack.launch(own, save_at=(5,))
    resumed = stack.launch(replace(own, lr=7e-3), checkpoint=whole.checkpoints[5], until=SWITCH_STEP)
    assert resumed.rates == {position: rate for position, rate in whole.rates.items() if 5 * BATCH <= position < SWITCH}


def test_the_record_tells_what_each_source_has_given(stack, whole):
    given = [record_of(stack, whole.checkpoints[at])[0]["given"] for at in SAVED]
    assert given == [[40, 0], [80, 0], [80, 40]]


@pytest.mark.parametrize("at", SAVED)
def test_a_record_of_version_1_is_read(stack, whole, launch, at):
    old = copy.deepcopy(whole.checkpoints[at])
    record, write = record_of(stack, old)
    kept = ("sequence_length", "seed", "phases", "blended", "text", "phase_ends", "transition_done")
    write({"version": 1, **{name: record[name] for name in kept}})
    resumed = stack.launch(launch, checkpoint=old)
    assert resumed.error is None
    assert resumed.crossed == ([SWITCH] if at <= SWITCH_STEP else [])


@pytest.mark.parametrize("version", [2, 3])
def test_a_run_that_ends_later_is_told_of_another_order_where_its_record_does_not_keep_it(stack, whole, launch, version):
    checkpoint = copy.deepcopy(whole.checkpoints[15])
    record, write = record_of(stack, checkpoint)
    write({name: value for name, value in record.items() if version == 3 or name != "history"} | {"version": version})
    resumed = stack.launch(replace(launch, steps=STEPS + 6), checkpoint=checkpoint, until=16)
    assert resumed.error is None
    assert resumed.says("was planned for 192 samples and this launch for 240") == (version == 2)


def spoil(name, value):
    def spoiled(record):
        return {**record, name: value}

    return spoiled


def without(name):
    def spoiled(record):
        return {key: value for key, value in record.items() if key != name}

    return spoiled


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (spoil("version", 99), "has version 99; this megatron-nca reads versions 1 to"),
        (without("phases"), "is damaged: it has no 'phases'"),
        (spoil("phase_ends", "80"), "is damaged: 'phase_ends' is '80'"),
        (lambda record: ["nca"], "is damaged: it is a list, not a mapping"),
    ],
)
@pytest.mark.parametrize("at", [5, 15])
def test_a_record_that_cannot_be_read_is_refused(stack, whole, launch, spoiled, words, at):
    damaged = copy.deepcopy(whole.checkpoints[at])
    record, write = record_of(stack, damaged)
    write(spoiled(record))
    refused = stack.launch(launch, checkpoint=damaged)
    assert isinstance(refused.error, CurriculumError)
    assert words in str(refused.error)
    assert not refused.samples
