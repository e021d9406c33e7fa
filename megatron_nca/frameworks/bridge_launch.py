"""Megatron-Bridge: which of its moments is which call of the run. Its modules are changed when a script imports them.

    parse_hydra_overrides       the options, as nca.KEY=VALUE
    normalize_callbacks         the options of an NCACallback; on_train_step_start, on_train_step_end and on_eval_end
    setup                       attach, validate
    setup_data_iterators        restore, before the datasets are built
    TrainState.state_dict       state_dict
    train_step                  watch

Of Bridge's events on_data_init_start would forbid train.num_epochs, and on_checkpoint_save comes after a checkpoint is written;
the functions above are in every version, and come when they are needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.errors import NCAError
from megatron_nca.frameworks.bridge_config import blends_of, padded_vocab_size
from megatron_nca.interfaces.bridge import CallbackContext, CallbackManager, ConfigContainer, GlobalState, TrainState
from megatron_nca.interfaces.core import ForwardStep
from megatron_nca.patching import T, Wrapper
from megatron_nca.stacks import BRIDGE
from megatron_nca.training import run_info, run_length
from megatron_nca.training.options import Options, read_overrides
from megatron_nca.training.progress import write_scalars
from megatron_nca.training.record import RECORD, packed, unpacked
from megatron_nca.training.run import Adapter, CurriculumRun
from megatron_nca.training.run_info import RunInfo

STACK = BRIDGE

PAST_SETUP = "a training loop is running that megatron.bridge.training.setup has not set up; use Bridge's pretrain"


@functools.cache
def wrappers(run: CurriculumRun) -> dict[str, Wrapper]:
    """Return what stands in the place of Bridge's functions, by their names in the table of seams; once a run."""
    adapter = MegatronBridge(run)
    return {
        "normalize_callbacks": adapter.around_callbacks,
        "parse_hydra_overrides": adapter.around_overrides,
        "setup": adapter.around_setup,
        "setup_data_iterators": adapter.around_data,
        "TrainState.state_dict": adapter.around_state_dict,
        "TrainState.load_state_dict": _keeping_record,
        "train_step": adapter.around_train_step,
    }


class MegatronBridge(Adapter):
    """The adapter of one process.

    Args:
        run: What it feeds.
    """

    stack = STACK

    def __init__(self, run: CurriculumRun) -> None:
        self._run = run
        self._overrides: Options | None = None
        self._callback: Options | None = None
        self._state: GlobalState | None = None
        self._scalars: Mapping[str, float] = {}

    def info(self) -> RunInfo:
        """Return what Bridge's config and train state tell of the run."""
        assert self._state is not None
        cfg, progress = self._state.cfg, self._state.train_state
        validation = getattr(cfg, "validation", cfg.train)
        sizes = [getattr(validation, f"eval_{kind}_batch_size", None) for kind in ("global", "micro")]
        return RunInfo(
            seed=cfg.rng.seed,
            consumed_samples=progress.consumed_train_samples,
            iteration=progress.step,
            padded_vocab_size=padded_vocab_size(cfg.model),
            loader=getattr(cfg.dataset, "dataloader_type", None),
            blends=blends_of(cfg.dataset),
            validation_sets_apart=bool(getattr(cfg.dataset, "multiple_validation_sets", False)),
            global_batch_size=cfg.train.global_batch_size,
            micro_batch_size=cfg.train.micro_batch_size,
            eval_batch_sizes=(int(sizes[0] or 0), int(sizes[1] or 0)) if all(sizes) else None,
            sequence_length=getattr(cfg.dataset, "seq_length", None) or getattr(cfg.dataset, "sequence_length", None),
            train_samples=cfg.train.train_samples,
            train_iterations=cfg.train.train_iters if cfg.train.train_samples is None else None,
            text_warmup_fraction=cfg.scheduler.lr_warmup_fraction,
            eval_batches=run_info.eval_batches(validation.eval_iters),
        )

    def around_overrides(self, original: Callable[..., T]) -> Callable[..., T]:
        """Take our overrides off a command line."""

        def parse_hydra_overrides(cfg: object, overrides: Sequence[str]) -> T:
            ours = [word for word in overrides if word.lstrip("+").startswith(STACK.prefix)]
            self._overrides = read_overrides(ours, STACK) if ours else None
            return original(cfg, [word for word in overrides if word not in ours])

        return parse_hydra_overrides

    def around_callbacks(self, original: Callable[..., CallbackManager]) -> Callable[..., CallbackManager]:
        """Add our moments to a pre-training's callbacks."""

        def normalize_callbacks(callbacks: object) -> CallbackManager:
            manager = original([] if callbacks is None else callbacks)
            given = [getattr(method, "__self__", None) for method in manager.list_callbacks("on_train_start")]
            self._callback = next(filter(None, (getattr(one, "nca_options", None) for one in given)), None)
            if self._callback is not None and self._overrides is not None:
                raise NCAError(
                    "nca. overrides are given, and the script has an NCACallback with options of its own; give one or the other"
                )
            for event in ("on_train_step_start", "on_train_step_end", "on_eval_end"):
                if getattr(self, event) not in manager.list_callbacks(event):
                    manager.register(event, getattr(self, event))
            return manager

        return normalize_callbacks

    def around_setup(self, original: Callable[..., T]) -> Callable[..., T]:
        """Attach and validate, as soon as there is a config."""

        def setup(state: GlobalState, *rest: object, **keywords: object) -> T:
            self._state = state
            self._run.attach(self)
            options = self._callback or self._overrides or Options()
            self._run.validate(options)
            plan = self._run.planned_length(BatchBoundaries(state.cfg.train.global_batch_size))
            if plan is not None:
                run_length.give_steps(state.cfg, plan, options.text_restarts)
            return original(state, *rest, **keywords)

        return setup

    def around_data(self, original: Callable[..., T]) -> Callable[..., T]:
        """Restore the record of the checkpoint that has been read; weights to start from have no steps behind them."""

        def setup_data_iterators(cfg: ConfigContainer, train_state: TrainState, *rest: object, **keywords: object) -> T:
            if train_state.consumed_train_samples > 0:
                self._run.restore(getattr(train_state, RECORD, None), train_state.consumed_train_samples)
            return original(cfg, train_state, *rest, **keywords)

        return setup_data_iterators

    def around_state_dict(self, original: Callable[..., dict[str, object]]) -> Callable[..., dict[str, object]]:
        """Add the record to a train state."""

        def state_dict(train_state: TrainState) -> dict[str, object]:
            state = original(train_state)
            record = self._run.state_dict(train_state.consumed_train_samples)
            if record is not None:
                state[RECORD] = packed(record)
            return state

        return state_dict

    def around_train_step(self, original: Callable[..., T]) -> Callable[..., T]:
        """Watch the losses of steps that mix NCA and text."""

        def train_step(forward_step: ForwardStep, *rest: object, **keywords: object) -> T:
            return original(self._run.watch(forward_step), *rest, **keywords)

        return train_step

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Call the run before a step."""
        self._run.require(self, PAST_SETUP)
        consumed = context.state.train_state.consumed_train_samples
        self._scalars = self._run.before_step(consumed, context.model, context.optimizer, context.scheduler)

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Write what the run has to say of a step."""
        logger, step = context.state.cfg.logger, context.state.train_state.step + 1
        if step % logger.tensorboard_log_interval == 0:
            _write(context.state, self._scalars, step)
        if step % logger.log_interval == 0:
            _write(context.state, self._run.report_losses(step), step)

    def on_eval_end(self, context: CallbackContext) -> None:
        """Evaluate NCA after a validation of text, where that was asked for."""
        step = context.state.train_state.step
        _write(context.state, self._run.evaluate(context.model, step), step)


def _keeping_record(original: Callable[..., None]) -> Callable[..., None]:
    def load_state_dict(train_state: TrainState, state: Mapping[str, object]) -> None:
        original(train_state, state)
        if RECORD in state:
            setattr(train_state, RECORD, unpacked(state[RECORD]))

    return load_state_dict


def _write(state: GlobalState, scalars: Mapping[str, float], step: int) -> None:
    """Write through Bridge's own writers, which only one rank has."""
    if scalars:
        write_scalars(state.tensorboard_logger, state.wandb_logger, scalars, step)
