import math
from types import SimpleNamespace

import pytest

from megatron_nca.errors import NCAError
from megatron_nca.stacks import BRIDGE, MEGATRON_LM
from megatron_nca.training import learning_rate
from megatron_nca.training.learning_rate import PhaseLearningRate

SWITCH, END = 400, 2000


class Optimizer:
    def __init__(self, groups=({},)):
        self.param_groups = [{"lr": 0.0, "weight_decay": 0.0, "wd_mult": 1.0, **group} for group in groups]


def scheduler(groups=({},), **settings):
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    options = {
        "init_lr": 0.0, "max_lr": 1e-3, "min_lr": 1e-5, "lr_warmup_steps": 100, "lr_decay_steps": END,
        "lr_decay_style": "cosine", "start_wd": 0.1, "end_wd": 0.1, "wd_incr_steps": END, "wd_incr_style": "constant",
        "use_checkpoint_opt_param_scheduler": False, **settings,
    }  # fmt: skip
    return OptimizerParamScheduler(Optimizer(groups), **options)


def rates(made, steps, increment=8):
    """Rate and weight decay of the first group at every step."""
    seen = []
    for _ in range(0, steps, increment):
        group = made.optimizer.param_groups[0]
        seen.append((group["lr"], group["weight_decay"]))
        made.step(increment)
    return seen


def alone(length, **settings):
    """A run of the text alone, of what remains after the switch."""
    return scheduler(**{"lr_decay_steps": length, "wd_incr_steps": length, **settings})


@pytest.mark.parametrize("style", ["constant", "linear", "cosine", "inverse-square-root", "WSD"])
def test_after_the_switch_the_text_has_the_schedule_of_a_run_of_its_own(style):
    options = {"lr_decay_style": style, "wsd_decay_steps": 300, "lr_wsd_decay_style": "exponential"}
    made = scheduler(**options)
    learning_rate.install(made, SWITCH, PhaseLearningRate())
    assert rates(made, END)[SWITCH // 8 :] == rates(alone(END - SWITCH, **options), END - SWITCH)


def test_the_phases_warm_up_over_a_tenth_and_decay_to_their_end():
    made = scheduler(lr_decay_style="linear")
    learning_rate.install(made, SWITCH, PhaseLearningRate(peak=4e-4, minimum=0.0))
    for step, (rate, _) in enumerate(rates(made, SWITCH)):
        samples = 8 * step
        expected = 4e-4 * samples / 40 if samples <= 40 else 4e-4 * (1 - (samples - 40) / 360)
        assert rate == pytest.approx(expected, rel=1e-12)


def test_cosine_is_the_analytic_curve():
    made = scheduler()
    learning_rate.install(made, SWITCH, PhaseLearningRate(warmup_samples=0))
    for step, (rate, _) in enumerate(rates(made, SWITCH)):
        expected = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * 8 * step / SWITCH)) / 2
        assert rate == pytest.approx(expected, rel=1e-12)


def test_the_first_step_already_has_the_phases_rate():
    made = scheduler(init_lr=5e-4)
    learning_rate.install(made, SWITCH, PhaseLearningRate(peak=1e-4))
    assert made.optimizer.param_groups[0]["lr"] == 1e-4, "a warm-up does not start above its peak"


def test_groups_with_a_peak_of_their_own_are_scaled():
    groups = ({}, {"max_lr": 2e-3, "min_lr": 2e-5})
    made = scheduler(groups=groups)
    learning_rate.install(made, SWITCH, PhaseLearningRate(peak=5e-4, warmup_samples=8))
    made.step(8)
    assert [group["lr"] for group in made.optimizer.param_groups] == pytest.approx([5e-4, 1e-3])


def test_weight_decay_grows_over_the_text_alone():
    settings = {"start_wd": 0.0, "end_wd": 0.2, "wd_incr_style": "linear"}
    made = scheduler(**settings)
    learning_rate.install(made, SWITCH, PhaseLearningRate())
    seen = [decay for _, decay in rates(made, END)]
    assert set(seen[: SWITCH // 8]) == {0.0}
    assert seen[SWITCH // 8 :] == [decay for _, decay in rates(alone(END - SWITCH, **settings), END - SWITCH)]


def test_a_warmup_fraction_is_of_what_remains():
    made = scheduler(lr_warmup_steps=0.1 * END)
    learning_rate.install(made, SWITCH, PhaseLearningRate(), text_warmup_fraction=0.1)
    assert rates(made, END)[SWITCH // 8 :] == rates(alone(END - SWITCH, lr_warmup_steps=160), END - SWITCH)


@pytest.mark.parametrize("at", [0, 96, SWITCH - 8, SWITCH, SWITCH + 8, 1000])
def test_a_resumed_scheduler_goes_on_with_the_same_rates(at):
    whole = scheduler()
    learning_rate.install(whole, SWITCH, PhaseLearningRate(peak=2e-4))
    expected = rates(whole, END)
    stopped = scheduler()
    learning_rate.install(stopped, SWITCH, PhaseLearningRate(peak=2e-4))
    stopped.step(at)
    resumed = scheduler()
    resumed.load_state_dict(stopped.state_dict())
    learning_rate.install(resumed, SWITCH, PhaseLearningRate(peak=2e-4))
    assert rates(resumed, END - at) == expected[at // 8 :]


def test_a_checkpoint_holds_the_schedulers_own_settings():
    plain, made = scheduler(), scheduler()
    learning_rate.install(made, SWITCH, PhaseLearningRate(peak=2e-4))
    assert made.state_dict() == plain.state_dict()


@pytest.mark.parametrize(
    ("settings", "switch", "remedy"),
    [
        ({"lr_warmup_steps": 1700}, SWITCH, "too few for the warm-up of 1,700"),
        (
            {"lr_decay_style": "WSD", "wsd_decay_steps": 1600, "lr_wsd_decay_style": "linear"},
            SWITCH,
            "too few for the final decay",
        ),
        ({}, END, "0 samples of decay remain"),
    ],
)
def test_a_text_too_short_for_its_schedule_is_refused(settings, switch, remedy):
    with pytest.raises(NCAError, match=remedy):
        learning_rate.install(scheduler(**settings), switch, PhaseLearningRate())


def test_a_warmup_longer_than_the_phases_is_refused():
    with pytest.raises(NCAError, match="does not fit the NCA phases, which end after 400"):
        learning_rate.install(scheduler(), SWITCH, PhaseLearningRate(warmup_samples=400))


def test_updates_that_were_skipped_do_not_delay_the_schedule():
    made = scheduler()
    learning_rate.install(made, SWITCH, PhaseLearningRate())
    made.step(SWITCH - 16)
    learning_rate.follow(made, SWITCH)
    assert rates(made, END - SWITCH) == rates(alone(END - SWITCH), END - SWITCH)
    learning_rate.follow(made, END)
    assert made.num_steps == END


@pytest.mark.parametrize("at", [0, 96, SWITCH - 8, SWITCH, SWITCH + 8, 1000])
def test_a_scheduler_whose_state_was_not_loaded_goes_on_with_the_same_rates(at):
    whole = scheduler()
    learning_rate.install(whole, SWITCH, PhaseLearningRate(peak=2e-4))
    expected = rates(whole, END)
    empty = scheduler()
    learning_rate.install(empty, SWITCH, PhaseLearningRate(peak=2e-4))
    learning_rate.follow(empty, at)
    assert rates(empty, END - at) == expected[at // 8 :]


def test_the_phases_peak_is_the_users_whatever_rate_of_the_run_is_overridden():
    """A checkpoint's groups keep the rates of the launch that wrote it; the scheduler has this launch's."""
    before, now = (
        scheduler(groups=({"max_lr": 1e-3, "min_lr": 1e-5},)),
        scheduler(groups=({"max_lr": 1e-3, "min_lr": 1e-5},), max_lr=7e-3, min_lr=7e-5),
    )
    for made in (before, now):
        learning_rate.install(made, SWITCH, PhaseLearningRate(peak=2.05e-5))
    seen = [[rate for rate, _ in rates(made, SWITCH)] for made in (before, now)]
    assert seen[0] == seen[1]
    assert max(seen[0]) == 2.05e-5


def test_the_phases_give_decoupled_embeddings_a_rate_of_their_own():
    groups = ({"max_lr": 1e-3, "min_lr": 1e-5}, {"max_lr": 1e-2, "min_lr": 1e-3, "default_config": False})
    made = scheduler(groups=groups)
    phase = PhaseLearningRate(4e-4, 4e-5, warmup_samples=0, decoupled_peak=6e-4, decoupled_minimum=2e-4)
    learning_rate.install(made, SWITCH, phase)
    assert [group["lr"] for group in made.optimizer.param_groups] == [4e-4, 6e-4]
    made.step(SWITCH - 1)
    assert [group["lr"] for group in made.optimizer.param_groups] == pytest.approx([4e-5, 2e-4], rel=1e-3)
    made.step(1 + 100)
    assert [group["lr"] for group in made.optimizer.param_groups] == [1e-3, 1e-2]


@pytest.mark.parametrize("phase", [PhaseLearningRate(decoupled_peak=6e-4), PhaseLearningRate(decoupled_minimum=6e-4)])
@pytest.mark.parametrize(
    ("stack", "option", "word"),
    [(MEGATRON_LM, "--nca-decoupled-", "--decoupled-lr"), (BRIDGE, "nca.decoupled_", "optimizer.decoupled_lr")],
)
def test_embeddings_that_share_the_layers_rate_cannot_have_their_own_in_the_phases(phase, stack, option, word):
    with pytest.raises(NCAError, match=rf"^{option}.*give {word} too") as raised:
        learning_rate.install(scheduler(), SWITCH, phase, stack=stack)
    assert "6e-04" in str(raised.value) or "0.0006" in str(raised.value)


def test_a_rank_without_embeddings_knows_of_their_rate_by_the_optimizers_settings():
    made = scheduler()
    made.optimizer.config = SimpleNamespace(decoupled_lr=1e-2)
    learning_rate.install(made, SWITCH, PhaseLearningRate(peak=4e-4, warmup_samples=0, decoupled_peak=6e-4))
    assert made.optimizer.param_groups[0]["lr"] == 4e-4


def test_a_decoupled_minimum_stays_in_the_phases():
    groups = ({"max_lr": 1e-3, "min_lr": 1e-5}, {"max_lr": 2e-3, "min_lr": 4e-4, "is_decoupled_lr": True})
    made = scheduler(groups=groups)
    learning_rate.install(made, SWITCH, PhaseLearningRate(warmup_samples=0))
    made.step(SWITCH - 1)
    assert [group["lr"] for group in made.optimizer.param_groups] == pytest.approx([1e-5, 4e-4], rel=0.02)
