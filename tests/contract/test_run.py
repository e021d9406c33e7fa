"""What every stack does alike in one run: the plan, the switch, rates, scalars, loops and loaders.

A list of scenarios, each driven through the stack's own moments in its own order.
"""

from dataclasses import replace

import pytest

import megatron_nca
from megatron_nca.errors import CurriculumError, NCAError
from megatron_nca.training.nca_validation import Result
from megatron_nca.training.run import CustomLoop
from tests.contract.machine import BATCH, ENTRY, STEPS, SWITCH_STEP, Launch
from tests.contract.records import SWITCH


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
