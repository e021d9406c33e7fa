"""One table of options: read from a Megatron-LM command line, Bridge's overrides, NeMo's arguments and Python alike."""

import argparse

import pytest

from megatron_nca.errors import NCAError
from megatron_nca.stacks import BRIDGE, CORE, MEGATRON_LM, NEMO, STACKS
from megatron_nca.training.options import (
    OPTIONS,
    Options,
    add_arguments,
    options_of,
    parameters,
    read_overrides,
    take_arguments,
)

GIVEN = {"reinit": "embeddings,mlp", "optimizer": "keep", "lr": "1e-4", "min_lr": "1e-5", "resume_as": "after-switch"}
READ = Options(reinit=("embeddings", "mlp"), optimizer="keep", lr=1e-4, min_lr=1e-5, resume_as="after-switch")


def from_flags(*arguments):
    args = add_arguments(argparse.ArgumentParser(exit_on_error=False)).parse_args(arguments)
    given = take_arguments(args)
    assert not vars(args), "nothing of ours is left for Megatron to print or save"
    return Options.read(given, MEGATRON_LM)


def from_overrides(*words):
    return read_overrides(words, BRIDGE)


def test_the_table_and_what_is_read_of_it_have_the_same_names_and_defaults():
    assert {option.name: option.default for option in OPTIONS} == vars(Options())


def test_without_any_the_switch_is_the_papers():
    assert from_flags() == from_overrides() == Options.read({}, NEMO) == Options()


def test_every_stack_reads_the_same_of_the_same():
    assert from_flags(*(word for name, value in GIVEN.items() for word in (MEGATRON_LM.option(name), value))) == READ
    assert from_overrides(*(f"nca.{name}={value}" for name, value in GIVEN.items())) == READ
    assert Options.read(GIVEN, NEMO) == Options.read(GIVEN, CORE) == READ


def test_flags_without_a_value():
    assert from_flags("--nca-valid", "--nca-override-curriculum") == Options(valid=0, override_curriculum=True)
    assert from_flags("--nca-valid", "3").valid == 3
    assert from_overrides("nca.valid=3", "+nca.override_curriculum=true") == Options(valid=3, override_curriculum=True)
    assert from_overrides("nca.valid", "nca.override_curriculum=false") == Options(valid=0)


def test_none_initialises_nothing():
    assert from_flags("--nca-reinit", "none").reinit == Options.read({"reinit": ()}, CORE).reinit == ()


WRONG = [
    ("reinit", "heads", "'heads' must be one of embeddings, attention, mlp, norms"),
    ("reinit", "none,mlp", "'none' must be one of"),
    ("lr", "-1", "must be a finite number, not below 0"),
    ("lr", "nan", "must be a finite number, not below 0"),
    ("min_lr", "inf", "must be a finite number, not below 0"),
    ("lr", "fast", "is no number, such as 1e-4"),
    ("optimizer", "new", "must be one of fresh, keep"),
    ("lr_at_switch", "half", "must be one of restart, continue"),
    ("resume_as", "before", "must be one of before-switch, after-switch"),
    ("valid", "-1", "must not be negative"),
    ("valid", "1.5", "is not a whole number"),
]


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
@pytest.mark.parametrize(("name", "value", "problem"), WRONG)
def test_a_wrong_value_is_refused_in_the_spelling_of_the_stack(stack, name, value, problem):
    with pytest.raises(NCAError) as error:
        Options.read({name: value}, stack)
    assert str(error.value).startswith(f"{stack.option(name, value)}: ")
    assert problem in str(error.value)


def test_the_spellings():
    assert MEGATRON_LM.option("lr_at_switch", "continue") == "--nca-lr-at-switch continue"
    assert BRIDGE.option("lr_at_switch", "continue") == "nca.lr_at_switch=continue"
    assert NEMO.option("lr_at_switch", "continue") == "nca_lr_at_switch='continue'"
    spelt = [stack.option("override_curriculum", True) for stack in (MEGATRON_LM, BRIDGE, NEMO, CORE)]
    assert spelt == [
        "--nca-override-curriculum", "nca.override_curriculum=true", "nca_override_curriculum=True", "override_curriculum=True",
    ]  # fmt: skip


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_an_option_that_is_none_is_refused_with_those_there_are(stack):
    with pytest.raises(NCAError, match="there is no such option") as error:
        Options.read({"learning_rate": 1}, stack)
    assert all(stack.option(option.name) in str(error.value) for option in options_of(stack))


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_an_option_of_another_stack_is_refused_with_what_to_give_here(stack):
    missing = [option for option in OPTIONS if option not in options_of(stack)]
    assert {option.name for option in missing} == (
        {"lr_warmup_samples", "lr_decay_style", "decoupled_min_lr"} if stack is NEMO else {"lr_warmup_steps"}
    )
    for option in missing:
        with pytest.raises(NCAError, match=r"; (give|choose) "):
            Options.read({option.name: option.choices[0] if option.choices else 3}, stack)


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_one_schedule_over_the_run_and_a_rate_of_the_phases_own_exclude_each_other(stack):
    with pytest.raises(NCAError, match="give one or the other") as error:
        Options.read({"lr_at_switch": "continue", "lr": 1e-4}, stack)
    assert stack.option("lr") in str(error.value)


def test_an_override_without_a_value_is_refused():
    with pytest.raises(NCAError, match=r"nca\.lr: has no value; write nca\.lr=VALUE"):
        from_overrides("nca.lr")


def test_a_signature_names_every_option_with_types_that_a_command_line_reads():
    found = {parameter.name: parameter for parameter in parameters(NEMO)}
    assert list(found) == [NEMO.option(option.name) for option in options_of(NEMO)]
    assert found["nca_reinit"].default == "embeddings"
    assert found["nca_override_curriculum"].annotation is bool
    assert float in found["nca_lr"].annotation.__args__
    Options.read({name.removeprefix("nca_"): parameter.default for name, parameter in found.items()}, NEMO)
