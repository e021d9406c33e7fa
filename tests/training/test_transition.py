import pytest

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.errors import NCAError
from megatron_nca.training import Transition, TransitionSettings
from megatron_nca.training.transition import State
from tests.training.test_optimizer import trained
from tests.training.test_reinit import EMBEDDING, Model

SWITCH = 104


def plan(*prefixes):
    return plan_training(read_blend((prefixes, None)), 128, 1000, BatchBoundaries(8))


PLAN = plan("nca:tokens=12800", "/text")


class Leaf:
    def __init__(self):
        _, self.optimizer = trained((3,))


class Run:
    """Calls a transition before every step, and records where weights and moments changed."""

    def __init__(self, transition):
        self.transition, self.model, self.optimizer = transition, Model(), Leaf()

    def steps(self, begin, end):
        self.transition.prepare([self.model], self.optimizer, None)
        return [
            consumed
            for consumed in range(begin, end, 8)
            if self.transition.before_step(consumed, [self.model], self.optimizer, None)
        ]

    @property
    def weight(self):
        return dict(self.model.named_parameters())[EMBEDDING]

    @property
    def has_moments(self):
        return any(state["exp_avg"].any() for state in self.optimizer.optimizer.state.values())


def test_it_happens_once_before_the_first_step_of_the_text():
    lines = []
    run = Run(Transition(PLAN, report=lines.append))
    assert run.steps(0, SWITCH) == []
    assert run.has_moments
    assert not run.weight.any()
    assert run.steps(SWITCH, 400) == [SWITCH]
    assert not run.has_moments
    assert run.weight.any()
    assert len(lines) == 1
    assert "after 104 samples (13,312 tokens)" in lines[0]


def test_a_checkpoint_at_the_boundary_still_has_it_to_come():
    assert Run(Transition(PLAN)).steps(SWITCH, 400) == [SWITCH]


@pytest.mark.parametrize("consumed", [SWITCH, SWITCH + 8, 500])
def test_one_that_has_been_done_is_not_repeated(consumed):
    transition = Transition(PLAN, state=State.DONE)
    assert Run(transition).steps(consumed, 800) == []


def test_it_is_made_up_for_where_the_steps_up_to_the_switch_were_skipped():
    run = Run(Transition(PLAN))
    assert run.steps(500, 800) == [500]
    assert run.transition.state is State.DONE


def test_every_rank_draws_the_same_weights():
    runs = [Run(Transition(PLAN)) for _ in range(2)]
    for run in runs:
        run.steps(0, 400)
    assert runs[0].weight.equal(runs[1].weight)


def test_nothing_is_touched_where_nothing_is_asked_for():
    run = Run(Transition(PLAN, TransitionSettings(reinit=(), optimizer="keep", lr="continue")))
    assert run.steps(0, 400) == [SWITCH]
    assert run.has_moments
    assert not run.weight.any()


@pytest.mark.parametrize("prefixes", [["nca:"], ["/a"]])
def test_without_a_switch_nothing_happens(prefixes):
    assert Run(Transition(plan(*prefixes))).steps(0, 800) == []


def test_what_cannot_be_carried_across_is_refused_at_the_first_step():
    run = Run(Transition(PLAN))
    run.optimizer.optimizer.sub_optimizers = []
    with pytest.raises(NCAError, match="--optimizer-cpu-offload"):
        run.steps(0, 8)


@pytest.mark.parametrize("wrong", [{"reinit": ("heads",)}, {"optimizer": "reset"}, {"lr": "half"}])
def test_unknown_choices_are_refused(wrong):
    with pytest.raises(NCAError, match="must be one of"):
        TransitionSettings(**wrong)
