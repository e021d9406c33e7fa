"""The transition: one object, called before every step, that does at the end of the last NCA phase what the paper does.

In this order, once, on every rank alike: new embeddings, a fresh optimizer, the text's own learning-rate schedule, and no
statistic of NCA left to scale FP8 text. Every framework's adapter calls the same ``before_step``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from megatron_nca.data.curriculum import Plan
from megatron_nca.training import fp8, learning_rate, optimizer, reinit
from megatron_nca.training.settings import TransitionSettings


class Transition:
    """Carries a run across the switch of its plan.

    Args:
        plan: The training plan; without a switch, nothing ever happens.
        settings: What to do.
        seed: Of the new weights; every rank must have the same.
        report: Takes the line that tells of the transition; called on every rank.
    """

    def __init__(
        self,
        plan: Plan,
        settings: TransitionSettings | None = None,
        seed: int = 1234,
        report: Callable[[str], None] = print,
    ) -> None:
        self.plan = plan
        self.settings = settings or TransitionSettings()
        self.seed = seed
        self.report = report
        self.done: bool | None = None
        self._next_check = 0 if plan.switch is not None else None

    def before_step(self, consumed_samples: int, model: Sequence[Any], optimizer: Any, opt_param_scheduler: Any) -> bool:
        """Do the transition if this step is the first of the text.

        Args:
            consumed_samples: Samples of all steps so far.
            model: Megatron's model chunks of this rank.
            optimizer: Megatron's optimizer.
            opt_param_scheduler: Megatron's learning-rate scheduler, or None.

        Returns:
            Whether the transition was done.

        Raises:
            NCAError: The model or optimizer is of a kind that cannot be carried across.
        """
        if self._next_check is None or consumed_samples < self._next_check:
            return False
        if self._next_check == 0:
            return self._begin(consumed_samples, model, optimizer, opt_param_scheduler)
        self._perform(consumed_samples, model, optimizer, opt_param_scheduler)
        return True

    def _begin(self, consumed_samples: int, model: Sequence[Any], optimizer: Any, opt_param_scheduler: Any) -> bool:
        """Set up at a run's first step, so that what cannot work fails here and not at the switch."""
        switch = self.plan.switch or 0
        self._check(model, optimizer)
        if self.settings.lr == "restart" and opt_param_scheduler is not None:
            learning_rate.install(opt_param_scheduler, switch, self.settings.phase_lr, self.settings.text_warmup_fraction)
        # A checkpoint at the boundary was written by the last NCA step, so the transition is still to be done.
        if self.done is None:
            self.done = consumed_samples > switch
        self._next_check = None if self.done else switch
        if self._next_check is None or consumed_samples < switch:
            return False
        self._perform(consumed_samples, model, optimizer, opt_param_scheduler)
        return True

    def _check(self, model: Sequence[Any], megatron_optimizer: Any) -> None:
        if self.settings.reinit:
            reinit.check(model, self.settings.reinit)
        if self.settings.optimizer == "fresh" or self.settings.reinit:
            optimizer.check(megatron_optimizer)

    def _perform(self, consumed_samples: int, model: Sequence[Any], megatron_optimizer: Any, opt_param_scheduler: Any) -> None:
        settings = self.settings
        renewed = reinit.reinitialize(model, settings.reinit, self.seed)
        optimizer.copy_to_master(megatron_optimizer, renewed)
        if settings.optimizer == "fresh":
            optimizer.reset_state(megatron_optimizer)
        if settings.lr == "restart" and opt_param_scheduler is not None:
            learning_rate.begin_text(opt_param_scheduler, self.plan.switch or 0)
        modules = fp8.reset_scaling_state(model)
        self.done = True
        self._next_check = None
        tokens = consumed_samples * self.plan.sequence_length
        self.report(
            f"megatron-nca: switch to text after {consumed_samples:,} samples ({tokens:,} tokens): "
            f"reinitialised {', '.join(settings.reinit) or 'nothing'}, optimizer {settings.optimizer}, "
            f"learning rate {settings.lr}, FP8 scaling state reset in {modules} modules"
        )
