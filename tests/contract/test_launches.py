"""The scenarios in whole runs of the real stacks: `pretrain_gpt.py`, Bridge's `pretrain`, NeMo's `llm.pretrain`.

Each is one start from a checkpoint of one run. Megatron-LM's are those that MEGATRON_LM names; the other two are run where they
are installed, by `make test-bridge`, `make test-bridge-0.6` and `make test-nemo`.
"""

import re
from dataclasses import replace

import pytest

from tests.contract.launched import BATCH, ENTRY, STEPS, SWITCH, UNCHANGED, Change, available

pytestmark = pytest.mark.slow

NEEDED = {
    "Megatron-LM": "MEGATRON_LM names no checkout of Megatron-LM",
    "Megatron-Bridge": "needs Megatron-Bridge; make test-bridge brings it",
    "NeMo": "needs NeMo 2.7; make test-nemo brings it",
}
HERE = available()
MISSING = [
    pytest.param(None, marks=pytest.mark.skip(reason=reason), id=f"no {name}")
    for name, reason in NEEDED.items()
    if not any(stack.label.startswith(name) for stack in HERE)
]


class WholeRun:
    """The run that nothing interrupts, and starts from its checkpoints."""

    def __init__(self, stack, text, folder):
        self.stack, self.text, self.folder = stack, str(text), folder
        self.outcome = stack.start(folder / "whole", self.text, saves=True)
        assert self.outcome.succeeded, self.outcome.printed[-4000:]
        self.starts = 0

    def resume(self, step, change=UNCHANGED, record="record"):
        """Start again from the checkpoint of a step, its record perhaps rewritten."""
        self.starts += 1
        own = self.folder / f"start{self.starts}"
        checkpoint = self.stack.checkpoint(self.folder / "whole", step, own / "from", record)
        return self.stack.start(own / "run", self.text, change, checkpoint)

    def rest(self, step):
        """What follows a step."""
        return {number: values for number, values in self.outcome.steps.items() if number > step}


@pytest.fixture(scope="module", params=[*(pytest.param(stack, id=stack.label) for stack in HERE), *MISSING])
def whole(request, corpus, tmp_path_factory):
    return WholeRun(request.param, corpus, tmp_path_factory.mktemp("launches"))


def refused(outcome, *words):
    assert not outcome.succeeded
    for word in words:
        assert word in outcome.printed, outcome.printed[-4000:]
    assert not outcome.steps


def goes_on(outcome, whole, step, where=lambda values: values):
    assert outcome.succeeded, outcome.printed[-4000:]
    expected = {number: where(values) for number, values in whole.rest(step).items() if number in outcome.steps}
    assert len(expected) > 5
    assert {number: where(values) for number, values in outcome.steps.items()} == expected


def test_a_run_tells_its_plan_and_switches_once(whole):
    outcome = whole.outcome
    assert f"{ENTRY} for 5,120 tokens (samples 0 to 80)" in outcome.printed
    assert "phases end after iterations 10" in outcome.printed
    assert outcome.switches == [SWITCH]
    assert max(outcome.steps) == STEPS


@pytest.mark.parametrize("place", range(3), ids=["before", "at", "behind"])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(whole, place):
    step = (whole.stack.saved if len(whole.stack.saved) == 3 else (SWITCH, *whole.stack.saved))[place]
    resumed = whole.resume(step)
    goes_on(resumed, whole, step)
    assert len(resumed.switches) == (step <= SWITCH)


def test_a_record_of_version_1_is_read(whole):
    kept = ("sequence_length", "seed", "phases", "blended", "text", "phase_ends", "transition_done")
    resumed = whole.resume(15, record=f"{{'version': 1, **{{name: record[name] for name in {kept}}}}}")
    goes_on(resumed, whole, 15)
    assert not resumed.switches


def test_rates_are_the_same_where_no_optimizer_was_loaded(whole):
    goes_on(whole.resume(15, Change(loads_optimizer=False)), whole, 15, where=lambda values: values[1])


def test_a_run_that_ends_later_is_told_of_another_order_where_its_record_does_not_keep_it(whole):
    older = "{**{name: value for name, value in record.items() if name != 'history'}, 'version': 2}"
    for record, told in ((older, True), ("record", False)):
        resumed = whole.resume(15, Change(steps=STEPS + 6), record=record)
        assert resumed.succeeded, resumed.printed[-4000:]
        assert ("was planned for 192 samples and this launch for 240" in resumed.printed) == told


SPOILT = {
    "a later version": ("{**record, 'version': 99}", "has version 99; this megatron-nca reads versions 1 to"),
    "without its phases": ("{name: value for name, value in record.items() if name != 'phases'}", "it has no 'phases'"),
    "of another kind": ("['nca']", "is damaged: it is a list, not a mapping"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_record_that_cannot_be_read_is_refused(whole, spoilt):
    record, words = SPOILT[spoilt]
    refused(whole.resume(15, record=record), "the checkpoint's record of its curriculum", words)


def test_a_checkpoint_without_a_record_must_be_placed(whole):
    option = whole.stack.stack.option
    refused(whole.resume(15, record="None"), option("resume_as", "before-switch"), option("resume_as", "after-switch"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change(seed=4321), "seed of the data:"),
        (Change(vocabulary=200), "NCA tokens:"),
        (Change(path=(ENTRY.replace("5000", "9000"), "TEXT")), "phases:"),
        (Change(path=(ENTRY, "TEXT", "TEXT")), "weights of the text:"),
    ],
    ids=["seed", "tokenizer", "phase", "texts"],
)
def test_another_curriculum_is_refused_with_both_sides_in_the_stacks_words(whole, change, words):
    override = whole.stack.stack.option("override_curriculum", True)
    refused(whole.resume(15, with_text(change, whole)), words, "checkpoint: ", "launch:     ", override)


def with_text(change, whole):
    return replace(change, path=change.path and tuple(whole.text if word == "TEXT" else word for word in change.path))


def test_an_entry_that_was_forgotten_is_missed(whole):
    refused(whole.resume(15, Change(path=(whole.text,))), "this launch has no nca: entry in its training data")


def test_an_override_behind_the_switch_may_not_repeat_text(whole):
    longer = Change(path=(ENTRY.replace("5000", "7000"), whole.text), options={"override_curriculum": True})
    refused(whole.resume(15, longer), "samples would be read twice")


def test_smaller_batches_under_a_length_in_steps_are_refused_at_the_start(whole):
    refused(whole.resume(15, Change(batch=4)), f"give {whole.stack.stack.word('samples')} 156 in place of a number of steps")


def test_a_loader_that_does_not_read_in_order_is_refused(whole):
    refused(whole.resume(15, Change(loader="cyclic")), f"nca: entries need {whole.stack.stack.word('loader')}")


def test_a_wrong_option_is_refused_in_the_stacks_spelling(whole):
    refused(
        whole.resume(15, Change(options={"lr": "nan"})), f"{whole.stack.stack.option('lr', 'nan')}: must be a finite number"
    )


def test_steps_that_are_skipped_over_the_switch_do_not_lose_it(whole):
    if whole.stack.label == "NeMo":
        pytest.skip("Lightning skips no steps")
    resumed = whole.resume(5, Change(skip=tuple(range(5, SWITCH + 2))))
    assert resumed.succeeded, resumed.printed[-4000:]
    # Megatron-LM counts the steps to skip from 0, and from 1 since 0.19.
    passed = min(resumed.steps) - 1
    assert passed > SWITCH
    assert f"switch to text after {passed * BATCH} samples" in resumed.printed
    goes_on(resumed, whole, passed, where=lambda values: values[1])


def test_losses_and_validation_of_nca_stand_apart(whole):
    fading = Change(path=(ENTRY.replace("5000", "2048") + ",ramp=2048", whole.text), options={"valid": 1})
    outcome = whole.stack.start(whole.folder / "fading", whole.text, fading)
    assert outcome.succeeded, outcome.printed[-4000:]
    mixed = re.findall(r"megatron-nca: iteration (\d+) \| nca loss: (\S+) \| text loss: (\S+)", outcome.printed)
    assert [int(step) for step, *_ in mixed] == [5, 6, 7, 8]
    assert all(float(loss) < 6 for _, *losses in mixed for loss in losses)
    assert re.search(r"megatron-nca: validation at iteration 5 \| NCA of held-out rules, .* \| loss: ", outcome.printed)
