"""CurriculumRun: one run's curriculum in one process, the same for every stack.

An adapter owes it five moments and holds no logic of its own:

    arguments are known       run.attach(adapter), run.validate(options)
    datasets are built        begin, called by the dataset builder's hook on every rank
    a checkpoint was read     run.restore(record or None, consumed)
    before every step         run.before_step(consumed, model, optimizer, scheduler)
    a checkpoint is written   run.state_dict(consumed)

The order of ``begin`` and ``restore`` is the stack's: they are compared once both are known. A loop of one's own on
Megatron-Core calls the last three itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import Plan
from megatron_nca.data.run import DataInfo, Datasets
from megatron_nca.errors import CurriculumError, NCAError
from megatron_nca.interfaces.core import ForwardStep, MegatronOptimizer, Model, OptimizerParamScheduler
from megatron_nca.stacks import CORE, Stack
from megatron_nca.training import checks, extra_state, phase_batches, resuming
from megatron_nca.training.options import Options
from megatron_nca.training.progress import Progress, ledger
from megatron_nca.training.record import Record
from megatron_nca.training.resuming import Checkpoint
from megatron_nca.training.run_info import RunInfo
from megatron_nca.training.transition import State, Transition
from megatron_nca.training.validating import validate

if TYPE_CHECKING:
    import torch

    from megatron_nca.training.source_losses import MicroBatches, SourceLosses

logger = logging.getLogger(__name__)

NO_PROGRESS = Progress(None)


class Adapter(Protocol):
    """What a stack's adapter tells a run."""

    stack: Stack

    def info(self) -> RunInfo:
        """Return what is known of the run at this time."""

    def report(self, line: str) -> None:
        """Print a line once for all ranks; called on every one."""
        print_on_rank_0(line)


class CustomLoop:
    """The adapter of a loop of one's own: nothing is known beyond what it passes.

    Args:
        report: Prints a line once for all ranks; called on every one.
    """

    stack = CORE

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self._report = report or print_on_rank_0

    def info(self) -> RunInfo:
        """Return no facts."""
        return RunInfo()

    def report(self, line: str) -> None:
        """Print once for all ranks."""
        self._report(line)


def print_on_rank_0(line: str) -> None:
    """Print on one rank, or where there are none yet."""
    import torch

    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        print(line, flush=True)


class CurriculumRun:
    """The curriculum of one run: its plan, its checkpoint's record, its transition.

    Args:
        options: What happens at the switch; an adapter brings the user's with ``validate``.
    """

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.plan: Plan | None = None
        self._adapter: Adapter = CustomLoop()
        self._datasets: Datasets | None = None
        self._checkpoint: Checkpoint | None = None
        self._transition: Transition | None = None
        self._losses: SourceLosses | None = None
        self._reported: set[str] = set()
        self._is_validated = False
        self._is_stepping = False

    @property
    def stack(self) -> Stack:
        """The stack that the run is on."""
        return self._adapter.stack

    @property
    def info(self) -> RunInfo:
        """What the stack knows of the run at this time."""
        return self._adapter.info()

    @property
    def data_info(self) -> DataInfo:
        """What the dataset builder is told."""
        return resuming.data_info(self.info, self._checkpoint, self.options)

    @property
    def is_driven(self) -> bool:
        """Whether an adapter, or a loop of one's own, has undertaken to call ``before_step``."""
        return self._is_stepping or self._checkpoint is not None or not isinstance(self._adapter, CustomLoop)

    @property
    def transition_done(self) -> bool:
        """Whether the run has been carried across its switch."""
        return self._transition is not None and self._transition.state is State.DONE and self._has_switch

    @property
    def _has_switch(self) -> bool:
        return self.plan is not None and self.plan.switch is not None

    def attach(self, adapter: Adapter) -> None:
        """Take the adapter of the stack that the run turns out to be on, when its data are set up; begins a new run.

        Args:
            adapter: Gives facts and prints.
        """
        self.__init__(self.options)  # type: ignore[misc]
        self._adapter = adapter

    def validate(self, options: Options | None = None) -> None:
        """Refuse what can be known before the model is built.

        Args:
            options: The user's.

        Raises:
            NCAError: Data, options and run do not go together.
        """
        self.options = options or self.options
        self._is_validated = True
        validate(self.options, self.info, self.stack)

    def planned_length(self, boundaries: BatchBoundaries) -> Plan | None:
        """Lay the launch out before its datasets are built, where phases have batches of their own; else None.

        Args:
            boundaries: The run's own batches.
        """
        return phase_batches.plan_phase_batches(self.info, boundaries)

    def planned_steps(self, boundaries: BatchBoundaries, counted: int) -> int:
        """Return how many steps a launch takes whose length is given in samples.

        Args:
            boundaries: The run's own batches.
            counted: What Megatron-LM makes of it.
        """
        return phase_batches.count_steps(self.info, boundaries, counted)

    def begin(self, plan: Plan | None, datasets: Datasets) -> None:
        """Take the training plan; called by the dataset builder's hook on every rank, before any text is built.

        Megatron builds datasets once for each model chunk of an interleaved pipeline; the same plan again changes nothing.

        Args:
            plan: The plan, or None where training has no word of ours.
            datasets: What its samples are made from.

        Raises:
            CurriculumError: The checkpoint's curriculum is another.
        """
        if plan is not None and plan == self.plan:
            return
        self.plan, self._datasets, self._transition, self._is_stepping = plan, datasets, None, False
        if plan is None:
            checks.check_change(self.options, self.stack)
        else:
            info = self.info
            checks.check_loader(info, self.stack)
            phase_batches.check(plan, self.stack)
            phase_batches.check_count(plan, info, self.stack)
            self._adapter.report(f"megatron-nca: {plan.describe()}{phase_batches.end_iterations(plan, info)}")
            for advice in extra_state.advices(info.args, extra_state.installed_version()):
                self._adapter.report(f"megatron-nca: warning: {advice}")
        self._compare()

    def restore(self, record: object, consumed_samples: int) -> None:
        """Take what a checkpoint says of the curriculum; not called where a run starts with a checkpoint's weights alone.

        Args:
            record: The record as ``state_dict`` gave it, or None where the checkpoint has none.
            consumed_samples: Samples of all steps before the checkpoint.

        Raises:
            CurriculumError: The record is damaged, of an unknown version, or of another curriculum than the launch's.
        """
        read = None if record is None else Record.from_state_dict(record)
        self._checkpoint = Checkpoint(read, consumed_samples)
        if self._datasets is not None:
            self._compare()

    def _compare(self) -> None:
        """Compare the launch with the checkpoint, once both are known."""
        if self._checkpoint is None or self._datasets is None:
            return
        launch = None if self.plan is None else self._record(self._checkpoint.consumed)
        lines = resuming.compare(self._checkpoint, launch, self._has_switch, self.options, self.stack)
        if self.plan is not None:
            checks.check_length(self.plan, self.info, self.stack)
        found = self._checkpoint.record
        if found is not None and launch is not None and self.plan is not None and resuming.is_amended(found, launch):
            lines = [*lines, *ledger(self.plan, self._checkpoint.consumed)]
        for line in lines:
            if line not in self._reported:
                self._adapter.report(f"megatron-nca: {line}")
        self._reported.update(lines)

    def _record(self, consumed: int) -> Record:
        assert self.plan is not None
        assert self._datasets is not None
        return Record.of(self.plan, self._datasets, consumed, self.transition_done)

    def before_step(
        self,
        consumed_samples: int,
        model: Model,
        optimizer: MegatronOptimizer | None,
        opt_param_scheduler: OptimizerParamScheduler | None = None,
    ) -> Mapping[str, float]:
        """Do what is due before a step: the transition once, the learning rate always.

        Args:
            consumed_samples: Samples of all steps so far.
            model: Megatron's model chunks of this rank.
            optimizer: Megatron's optimizer.
            opt_param_scheduler: Megatron's learning-rate scheduler, or None where the stack has another kind.

        Returns:
            The step's scalars, computed when they are read; nothing without a plan.

        Raises:
            NCAError: The run cannot be carried across its switch.
        """
        if self.plan is None:
            return NO_PROGRESS
        if self.plan.batches.phase_batches:
            phase_batches.install(self.plan.batches, consumed_samples)
        if self._transition is None:
            self._transition = self._prepare(consumed_samples, model, optimizer, opt_param_scheduler)
        self._transition.before_step(consumed_samples, model, optimizer, opt_param_scheduler)
        batch = _running_batch()
        if self._losses is not None:
            self._losses.begin_step(_micro_batches(consumed_samples, batch))
        return Progress(self.plan, consumed_samples, batch)

    def _prepare(
        self,
        consumed: int,
        model: Model,
        optimizer: MegatronOptimizer | None,
        opt_param_scheduler: OptimizerParamScheduler | None,
    ) -> Transition:
        assert self.plan is not None
        state = self._state(consumed)
        info = self.info
        settings = self.options.transition_settings(info.text_warmup_fraction)
        assert self._datasets is not None
        seed = self._datasets.seed if info.seed is None else info.seed
        transition = Transition(self.plan, settings, seed, self._adapter.report, state, self.stack)
        transition.prepare(model, optimizer, opt_param_scheduler)
        if not info.replays_steps and not isinstance(self._adapter, CustomLoop):
            from megatron_nca.training.source_losses import SourceLosses

            self._losses = SourceLosses(self.plan)
        self._is_stepping = True
        return transition

    def _state(self, consumed: int) -> State:
        """Tell where the run stands, at its first step."""
        if self._checkpoint is not None:
            return resuming.state_of(self._checkpoint, self.options)
        if isinstance(self._adapter, CustomLoop) and consumed > 0 and self._has_switch:
            raise CurriculumError(
                f"the first step is at {consumed:,} consumed samples, and nothing says where the run stands; call "
                "run.restore(record, consumed) with what run.state_dict(consumed) gave the checkpoint, or with None for a "
                "checkpoint that holds none"
            )
        return State.AHEAD

    def require(self, adapter: Adapter, way: str) -> None:
        """Refuse the step of a stack whose arguments never came by.

        Args:
            adapter: The stack's.
            way: What goes past them, and what to do.

        Raises:
            NCAError: The run has a plan, and another adapter or none.
        """
        if self.plan is not None and (self._adapter is not adapter or not self._is_validated):
            raise NCAError(f"{adapter.stack.name}: {way}")

    def state_dict(self, consumed_samples: int) -> dict[str, object] | None:
        """Return the record for a checkpoint: plain values, versioned; None without a curriculum.

        Args:
            consumed_samples: Samples of all steps so far.
        """
        return None if self.plan is None else self._record(consumed_samples).state_dict()

    def watch(self, forward_step: ForwardStep) -> ForwardStep:
        """Return the step's forward step, with NCA's and text's losses kept apart where the step mixes them."""
        return forward_step if self._losses is None else self._losses.watch(forward_step)

    def observe(self, losses: torch.Tensor, mask: torch.Tensor) -> None:
        """Add a micro-batch's losses, where the stack shows them in another way than a forward step's loss function."""
        if self._losses is not None:
            self._losses.observe(losses, mask)

    def report_losses(self, iteration: int) -> dict[str, float]:
        """Print NCA's and text's mean losses since the last report, where steps mixed them; called on all ranks.

        Args:
            iteration: Steps so far.

        Returns:
            The scalars, the same on every rank.
        """
        losses: dict[str, float] = {} if self._losses is None else self._losses.report()
        if losses:
            each = " | ".join(f"{name.split('/')[0]} loss: {loss:.6E}" for name, loss in losses.items())
            self._adapter.report(f"megatron-nca: iteration {iteration} | {each}")
        return losses

    def evaluate(self, model: Model, iteration: int) -> dict[str, float]:
        """Evaluate NCA of held-out rules and print it, where the option ``valid`` asks for it; called on all ranks.

        Args:
            model: Megatron's model chunks of this rank.
            iteration: Steps so far.

        Returns:
            The scalars, the same on every rank.
        """
        if self.plan is None or self.options.valid is None or self._datasets is None:
            return {}
        from megatron_nca.training.nca_validation import Batches, validate

        info = self.info
        sizes = info.eval_batch_sizes or (info.global_batch_size or 1, info.micro_batch_size or 1)
        batches = Batches(self.options.valid or info.eval_batches or 1, *sizes)
        results = validate(self.plan, model, batches, self._datasets.config, info.padded_vocab_size)
        scalars: dict[str, float] = {}
        for number, result in enumerate(results, 1):
            self._adapter.report(f"megatron-nca: validation at iteration {iteration} | {result.describe()}")
            scalars |= result.scalars(f"/{number}" if len(results) > 1 else "")
        return scalars


def _running_batch() -> int:
    """Return the samples of the coming step as Megatron-Core counts them; 1 in a loop that has no such count."""
    from megatron.core import num_microbatches_calculator as calculator

    if calculator._GLOBAL_NUM_MICROBATCHES_CALCULATOR is None:
        return 1
    return int(calculator.get_current_running_global_batch_size())


def _micro_batches(consumed_samples: int, batch: int) -> MicroBatches:
    from megatron.core import num_microbatches_calculator as calculator
    from megatron.core import parallel_state

    from megatron_nca.training.source_losses import MicroBatches

    rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    size = int(calculator.get_micro_batch_size())
    return MicroBatches(consumed_samples, size, rank, ranks, batch // (size * ranks))
