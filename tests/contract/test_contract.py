"""What every stack does alike: one list of scenarios, each driven through the stack's own moments in its own order."""

import copy
import hashlib
import json
from dataclasses import replace

import pytest

import megatron_nca
from megatron_nca.errors import CurriculumError, NCAError
from megatron_nca.training.nca_validation import Result
from megatron_nca.training.run import CustomLoop
from tests.conftest import Tokenizer, write_text
from tests.contract.machine import BATCH, ENTRY, SEQUENCE, STEPS, SWITCH_STEP, Launch

SWITCH = SWITCH_STEP * BATCH
SAVED = (5, SWITCH_STEP, 15)
PLACES = {"before": 5, "at": SWITCH_STEP, "behind": 15}


@pytest.fixture
def launch(text):
    return Launch((ENTRY, text))


@pytest.fixture(scope="module")
def whole(stack, text):
    """The run that nothing interrupts, with a checkpoint before, at and behind the switch."""
    outcome = stack.launch(Launch((ENTRY, text)), save_at=SAVED)
    assert outcome.error is None
    return outcome


def record_of(stack, checkpoint):
    """The record in a checkpoint, as a dict to look at and to spoil; the second value writes it back."""
    own = checkpoint.stacks_own
    name = stack.stack.name
    if name == "Megatron-LM":
        return own.nca_curriculum, lambda state: setattr(own, "nca_curriculum", state)
    if name == "Megatron-Bridge":
        import torch

        def write(state):
            own["nca_curriculum"] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)

        return json.loads(bytes(own["nca_curriculum"].tolist())), write
    if name == "NeMo":
        return own["record"], lambda state: own.__setitem__("record", state)

    def replace_own(state):
        checkpoint.stacks_own = state

    return own, replace_own


def without_record(stack, checkpoint):
    """The checkpoint of a run without megatron-nca."""
    plain = copy.deepcopy(checkpoint)
    name = stack.stack.name
    if name == "Megatron-LM":
        del plain.stacks_own.nca_curriculum
    elif name == "Megatron-Bridge":
        del plain.stacks_own["nca_curriculum"]
    else:
        plain.stacks_own = {} if name == "NeMo" else None
    return plain


# A run that nothing interrupts.


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


PHASES = "nca:tokens=2K,grid=8,colors=6,trajectory=64 phase:tokens=3K 0.7 A 0.3 B phase: 0.4 A 0.3 B 0.3 C"
SEEN = {}
DIGEST = "dbb26be5a29720d8cd35aacbf487d29247590e7df980d617527afa11133096ab"
"""Digest of all samples of that run, in order: real packages are driven each in a process of its own."""


@pytest.fixture(scope="session")
def third_text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "c", 250, seed=2)


@pytest.fixture
def path(text, other_text, third_text):
    """Return a data path whose texts are A, B and C."""
    places = {"A": text, "B": other_text, "C": third_text}
    return lambda words: tuple(places.get(word, word) for word in words.split())


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


def test_a_batch_that_does_not_divide_is_refused(stack, text):
    refused = stack.launch(Launch((f"{ENTRY},batch=6", text), steps=OWN_STEPS), until=1)
    assert "batch=6" in str(refused.error)
    assert "the nearest that fit are 4 or 8" in str(refused.error)


def test_the_plan_is_printed_once_with_the_iterations_at_which_phases_end(whole):
    [line] = [line for line in whole.lines if line.startswith(f"megatron-nca: {ENTRY} for 5,120 tokens (samples 0 to 80)")]
    assert line.endswith("; phases end after iterations 10")


def test_the_switch_comes_once_before_the_first_step_of_text(whole):
    assert whole.crossed == [SWITCH]
    assert sum("switch to text after 80 samples (5,120 tokens)" in line for line in whole.lines) == 1


def test_the_learning_rate_warms_up_anew_for_the_text(whole):
    rates = [whole.rates[BATCH * step] for step in range(STEPS)]
    assert rates[SWITCH_STEP - 1] < rates[SWITCH_STEP - 3]
    assert rates[SWITCH_STEP] < rates[SWITCH_STEP + 2]


def test_embeddings_have_a_rate_of_their_own_in_the_nca_phase(stack, text, launch):
    options = {"lr": 4e-4, "decoupled_lr": 2e-3}
    outcome = stack.launch(replace(launch, options=options, embedding_lr=1e-2), save_at=(7,))
    assert outcome.error is None
    layers, embeddings = ([rates[BATCH * n] for n in range(SWITCH_STEP)] for rates in (outcome.rates, outcome.embedding_rates))
    assert max(layers) == pytest.approx(4e-4)
    assert max(embeddings) == pytest.approx(2e-3)
    resumed = stack.launch(replace(launch, options=options, embedding_lr=1e-2), checkpoint=outcome.checkpoints[7])
    assert resumed.embedding_rates.items() <= outcome.embedding_rates.items()


def test_embeddings_in_one_group_with_the_layers_cannot_have_a_rate_of_their_own(stack, launch):
    outcome = stack.launch(replace(launch, options={"decoupled_lr": 2e-3}))
    assert isinstance(outcome.error, NCAError)
    assert str(outcome.error).startswith(stack.stack.option("decoupled_lr", 2e-3))
    assert f"give {stack.stack.word('decoupled')} too" in str(outcome.error)


def test_scalars_tell_phase_share_and_tokens_of_every_step(whole):
    assert [whole.scalars["nca/share"][step] for step in (1, SWITCH_STEP, SWITCH_STEP + 1)] == [1, 1, 0]
    assert [whole.scalars["nca/phase"][step] for step in (1, SWITCH_STEP, SWITCH_STEP + 1)] == [0, 0, 1]
    assert whole.scalars["nca/tokens"][STEPS] == 5120
    assert whole.scalars["text/tokens"][STEPS] == (STEPS - SWITCH_STEP) * BATCH * 64


def test_the_text_of_a_run_without_an_entry_is_untouched(stack, text):
    plain = stack.launch(Launch((text,)))
    assert plain.error is None
    assert not [line for line in plain.lines if "megatron-nca" in line]
    assert plain.crossed == []
    assert not plain.scalars


# Resuming.


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


# Another launch than the checkpoint's.


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


# Batches and lengths.


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


# Loops and loaders.


@pytest.mark.parametrize("loader", ["cyclic", "external"])
def test_a_loader_that_does_not_read_in_order_is_refused_in_the_stacks_words(framework, launch, loader):
    refused = framework.launch(replace(launch, loader=loader))
    assert isinstance(refused.error, CurriculumError)
    assert framework.stack.word("loader") in str(refused.error)
    assert repr(loader) in str(refused.error)


def test_steps_that_are_skipped_over_the_switch_do_not_lose_it(stack, launch):
    if stack.stack.name == "NeMo":
        pytest.skip("Lightning skips no steps")
    skipped = stack.launch(launch, skip=range(1, SWITCH_STEP + 3))
    assert skipped.error is None
    assert skipped.says("switch to text after 96 samples")
    whole = stack.launch(launch)
    # From the step on that follows the skipped ones.
    assert [skipped.rates[96 + BATCH * n] for n in range(8)] == [whole.rates[96 + BATCH * n] for n in range(8)]


def test_losses_of_nca_and_text_are_reported_apart_where_a_step_mixes_them(framework, text):
    fading = Launch((ENTRY.replace("5000", "2048") + ",ramp=2048", text))
    outcome = framework.launch(fading)
    assert outcome.error is None
    assert sorted(outcome.scalars["nca/loss"]) == sorted(outcome.scalars["text/loss"]) == [5, 6, 7, 8]
    assert all(value < 100 for value in outcome.scalars["nca/loss"].values()), "NCA's ids are the lowest"
    assert all(value > 3000 for value in outcome.scalars["text/loss"].values())


def test_validation_on_nca_stands_beside_every_validation_of_text(framework, launch, monkeypatch):
    from megatron_nca.training import nca_validation

    asked = []

    def validate(plan, model, batches, config, padded_vocab_size):
        asked.append(batches)
        return [Result(entry.text, 1.5, 0.5, (0.5,)) for entry in plan.curriculum.entries]

    monkeypatch.setattr(nca_validation, "validate", validate)
    outcome = framework.launch(replace(launch, options={"valid": 3}), until=2)
    assert outcome.error is None
    assert sorted(outcome.scalars["nca/valid-loss"]) == [1, 2]
    assert outcome.says("validation at iteration 2 | NCA of held-out rules")
    assert {(batches.number, batches.global_size, batches.micro_size) for batches in asked} == {(3, 8, 4)}
    assert not framework.launch(launch, until=1).says("held-out rules")


def test_an_option_without_an_entry_is_refused(framework, text):
    refused = framework.launch(Launch((text,), options={"lr": 1e-4}))
    assert f"{framework.stack.option('lr')} is given, but no data path has an nca: entry" in str(refused.error)


@pytest.mark.parametrize(("name", "value"), [("lr", "nan"), ("reinit", "heads"), ("optimizer", "new"), ("resume_as", "never")])
def test_a_wrong_option_is_refused_in_the_stacks_spelling(stack, launch, name, value):
    refused = stack.launch(replace(launch, options={name: value}))
    assert isinstance(refused.error, NCAError)
    assert str(refused.error).startswith(f"{stack.stack.option(name, value)}: ")


def test_a_schedule_too_short_names_the_stacks_own_settings(stack, launch):
    refused = stack.launch(replace(launch, steps=SWITCH_STEP + 1))
    assert isinstance(refused.error, NCAError)
    assert "too few for the warm-up" in str(refused.error)
    assert stack.stack.word("decay") in str(refused.error)
    assert stack.stack.option("lr_at_switch", "continue") in str(refused.error)
    assert stack.launch(replace(launch, steps=SWITCH_STEP + 1, options={"lr_at_switch": "continue"})).error is None


def test_a_registration_again_changes_nothing(stack, launch):
    run = megatron_nca.register()
    stack.launch(launch, until=2)
    assert megatron_nca.register() is run
    assert run.plan is not None


# What only one of them can meet.


def test_a_loop_of_ones_own_that_goes_on_without_restoring_is_refused(one_rank, build, text):
    run = megatron_nca.register()
    run.attach(CustomLoop())
    build(["nca:tokens=2560", text])
    with pytest.raises(CurriculumError, match=r"first step is at 30 consumed samples.*run\.restore\(record, consumed\)"):
        run.before_step(30, [], None)


def test_arguments_that_never_came_by_are_missed_at_the_first_step(one_rank, build, text, tmp_path):
    from tests.contract.drivers import MegatronLM

    megatron_lm = MegatronLM(tmp_path)
    megatron_nca.register().attach(CustomLoop())
    build(["nca:tokens=2560", text])
    with pytest.raises(NCAError, match=r"Megatron-LM: the launch's arguments did not come by, as with --yaml-cfg"):
        megatron_lm.module["training"].train_step(None, None, [], None, None, None)
