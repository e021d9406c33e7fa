"""The transition: what is done once, at the end of the last NCA phase, as the paper does it.

In this order, on every rank alike: new embeddings, a fresh optimizer, the text's own learning-rate schedule, and no
statistic of NCA left to scale FP8 text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from megatron_nca.data.curriculum import Plan
from megatron_nca.interfaces.core import MegatronOptimizer, Model, OptimizerParamScheduler
from megatron_nca.stacks import CORE, Stack
from megatron_nca.training import fp8, gathers, learning_rate, optimizer, reinit, routing
from megatron_nca.training.settings import TransitionSettings


class State(Enum):
    """Where a run stands with its transition."""

    AHEAD = "ahead"
    """It is to be done before the first step at or behind the switch."""
    DONE = "done"
    """It has been done, in this start of the run or in an earlier one; or the plan has none."""


class Transition:
    """Carries a run across the switch of its plan.

    Args:
        plan: The training plan; without a switch, nothing ever happens.
        settings: What to do.
        seed: Seed of the new weights; every rank must have the same.
        report: Takes the line that tells of the transition; called on every rank.
        state: Where the run stands.
        stack: The stack whose spelling errors use.
    """

    def __init__(
        self,
        plan: Plan,
        settings: TransitionSettings | None = None,
        seed: int = 1234,
        report: Callable[[str], None] = print,
        state: State = State.AHEAD,
        stack: Stack = CORE,
    ) -> None:
        self.plan = plan
        self.settings = settings or TransitionSettings()
        self.state = State.DONE if plan.switch is None else state
        self._seed = seed
        self._report = report
        self._stack = stack
        self._scheduled = False

    def prepare(
        self, model: Model, megatron_optimizer: MegatronOptimizer | None, opt_param_scheduler: OptimizerParamScheduler | None
    ) -> None:
        """Set up at a run's first step, so that what cannot work fails there and not at the switch.

        Args:
            model: Megatron's model chunks of this rank.
            megatron_optimizer: Megatron's optimizer.
            opt_param_scheduler: Megatron's learning-rate scheduler; None where the adapter has set the stack's own up.

        Raises:
            NCAError: The model, optimizer or schedule is of a kind that cannot be carried across.
        """
        if self.plan.switch is None:
            return
        if self.state is State.AHEAD:
            self._check(model, megatron_optimizer)
        if self.settings.lr == "restart" and opt_param_scheduler is not None:
            learning_rate.install(
                opt_param_scheduler, self.plan.switch, self.settings.phase_lr, self.settings.text_warmup_fraction, self._stack
            )
            self._scheduled = True

    def before_step(
        self,
        consumed_samples: int,
        model: Model,
        megatron_optimizer: MegatronOptimizer | None,
        opt_param_scheduler: OptimizerParamScheduler | None,
    ) -> bool:
        """Do the transition if this step is the first of the text, and bring the learning rate to the step's position.

        Args:
            consumed_samples: Samples of all steps so far.
            model: Megatron's model chunks of this rank.
            megatron_optimizer: Megatron's optimizer.
            opt_param_scheduler: Megatron's learning-rate scheduler, or None.

        Returns:
            Whether the transition was done.
        """
        crosses = self.state is State.AHEAD and consumed_samples >= (self.plan.switch or 0)
        if crosses:
            self._perform(consumed_samples, model, megatron_optimizer)
        if self._scheduled and opt_param_scheduler is not None:
            learning_rate.follow(opt_param_scheduler, consumed_samples)
        return crosses

    def _check(self, model: Model, megatron_optimizer: MegatronOptimizer | None) -> None:
        if self.settings.reinit:
            reinit.check(model, self.settings.reinit)
        if self.settings.optimizer == "fresh" or self.settings.reinit:
            optimizer.check(megatron_optimizer)

    def _perform(self, consumed_samples: int, model: Model, megatron_optimizer: MegatronOptimizer | None) -> None:
        settings = self.settings
        gathers.finish(model)
        reinit.reinitialize(model, settings.reinit, self._seed, optimizer.MasterWeights(megatron_optimizer).take)
        if settings.optimizer == "fresh":
            optimizer.reset_state(megatron_optimizer)
        routers = routing.reset_biases(model) if settings.optimizer == "fresh" else 0
        cleared = fp8.clear_histories(model)
        self.state = State.DONE
        tokens = consumed_samples * self.plan.sequence_length
        self._report(
            f"megatron-nca: switch to text after {consumed_samples:,} samples ({tokens:,} tokens): "
            f"reinitialised {_tell(reinit.count(model, settings.reinit))}, optimizer {settings.optimizer}"
            f"{f', expert biases of {routers} routers zeroed' if routers else ''}, "
            f"learning rate {settings.lr}, {cleared}"
        )


def _tell(counts: Mapping[str, int]) -> str:
    """Name the parts and how many weights each had, so that a part that found none is seen."""
    return ", ".join(f"{part} ({number} weight{'s' * (number != 1)})" for part, number in counts.items()) or "nothing"
