"""``nca.KEY=VALUE`` of a Megatron-Bridge command line; reading them needs no Megatron-Bridge."""

import pytest

from megatron_nca.errors import NCAError
from megatron_nca.frameworks.bridge_launch import read_overrides


def test_keys_are_the_flags_of_megatron_lm():
    flags = read_overrides(
        ["nca.lr=1e-4", "+nca.min_lr=1e-5", "nca.reinit=embeddings,mlp", "nca.optimizer=keep", "nca.override_curriculum=true"]
    )
    assert flags.transition.phase_lr.peak == 1e-4
    assert flags.transition.phase_lr.minimum == 1e-5
    assert flags.transition.reinit == ("embeddings", "mlp")
    assert flags.transition.optimizer == "keep"
    assert flags.override_curriculum


def test_what_is_not_given_is_the_default():
    flags = read_overrides(["nca.override_curriculum=false"])
    assert not flags.override_curriculum
    assert flags.transition.reinit == ("embeddings",)
    assert flags.transition.lr == "restart"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("nca.learning_rate=1", r"unrecognized arguments: nca\.learning-rate"),
        ("nca.lr=fast", r"nca\.lr.*fast"),
        ("nca.lr=-1", "must be a finite number"),
        ("nca.lr", r"has no value; write nca\.lr=VALUE"),
        ("nca.optimizer=new", "invalid choice"),
        ("nca.override_curriculum=1", "must be true or false"),
        ("nca.valid=3", "Megatron-LM's alone"),
        ("nca.resume_as=after-switch", r"checkpoint\.pretrained_checkpoint"),
    ],
)
def test_what_cannot_be_read_is_refused(override, problem):
    with pytest.raises(NCAError, match=problem):
        read_overrides([override])
