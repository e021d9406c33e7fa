import argparse
from types import SimpleNamespace

import pytest

from megatron_nca.errors import NCAError
from megatron_nca.frameworks.flags import Flags, add_flags, take_flags
from megatron_nca.training import TransitionSettings


def parse(*arguments, **megatron):
    args = add_flags(argparse.ArgumentParser(exit_on_error=False)).parse_args(arguments)
    given = take_flags(args)
    assert not vars(args), "nothing of ours is left for Megatron to print or save"
    return Flags.read(given, SimpleNamespace(lr_warmup_fraction=None, **megatron))


def test_without_flags_the_switch_is_the_papers():
    assert parse() == Flags(TransitionSettings(reinit=("embeddings",), optimizer="fresh", lr="restart"))


def test_every_flag_is_read():
    flags = parse(
        *("--nca-reinit", "embeddings,mlp", "--nca-optimizer", "keep", "--nca-lr", "1e-4", "--nca-min-lr", "1e-5"),
        *("--nca-lr-warmup-samples", "100", "--nca-lr-decay-style", "linear"),
        *("--nca-resume-as", "after-switch", "--nca-override-curriculum"),
    )
    assert flags.transition.reinit == ("embeddings", "mlp")
    assert flags.transition.optimizer == "keep"
    phase = flags.transition.phase_lr
    assert (phase.peak, phase.minimum, phase.warmup_samples, phase.decay_style) == (1e-4, 1e-5, 100, "linear")
    assert (flags.resume_as, flags.override_curriculum) == ("after-switch", True)


def test_none_initialises_nothing():
    assert parse("--nca-reinit", "none").transition.reinit == ()


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--nca-reinit", "heads"], "embeddings, attention, mlp, norms"),
        (["--nca-lr", "-1"], "not below 0"),
        (["--nca-lr", "nan"], "not below 0"),
        (["--nca-lr-warmup-samples", "-5"], "must not be negative"),
        (["--nca-lr-at-switch", "continue", "--nca-lr", "1e-4"], "give one or the other"),
    ],
)
def test_a_wrong_value_is_refused(arguments, remedy):
    with pytest.raises(NCAError, match=remedy):
        parse(*arguments)


def test_a_choice_is_checked_by_the_parser():
    with pytest.raises(argparse.ArgumentError):
        parse("--nca-optimizer", "new")
