"""Megatron-LM: which of its moments is which call of the run. Names the functions of ``megatron.training``, holds no logic.

    validate_args               attach, validate
    check_checkpoint_args       restore
    update_train_iters          planned_length
    train_step                  before_step, watch, the scalars
    save_checkpoint             state_dict
    evaluate_and_print_results  evaluate

They have kept their names and first arguments from 0.14 on.
"""

from __future__ import annotations

import functools
from argparse import ArgumentParser
from collections.abc import Callable, Mapping

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.frameworks.megatron_lm_args import blends_of
from megatron_nca.interfaces.core import ForwardStep, MegatronOptimizer, Model, OptimizerParamScheduler
from megatron_nca.interfaces.megatron_lm import Arguments
from megatron_nca.patching import T, Wrapper
from megatron_nca.refusing import alike_on_every_rank
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training import run_info, run_length
from megatron_nca.training.options import Options, add_arguments, take_arguments
from megatron_nca.training.progress import write_scalars
from megatron_nca.training.record import RECORD
from megatron_nca.training.run import Adapter, CurriculumRun
from megatron_nca.training.run_info import RunInfo

STACK = MEGATRON_LM

PAST_ARGUMENTS = (
    "the launch's arguments did not come by, as with --yaml-cfg, which goes past validate_args, so neither the --nca- options "
    "nor the run's own could be read; give the arguments on the command line"
)


@functools.cache
def wrappers(run: CurriculumRun) -> dict[str, Wrapper]:
    """Return what stands in the place of Megatron-LM's functions, by their names in the table of seams; once a run."""
    adapter = MegatronLM(run)
    return {
        "add_megatron_arguments": _with_options,
        "validate_args": adapter.around_validate,
        "check_checkpoint_args": adapter.around_check_checkpoint,
        "save_checkpoint": adapter.around_save,
        "update_train_iters": adapter.around_length,
        "train_step": adapter.around_train_step,
        "evaluate_and_print_results": adapter.around_evaluate,
    }


def _with_options(original: Callable[..., ArgumentParser]) -> Callable[..., ArgumentParser]:
    def add_megatron_arguments(parser: ArgumentParser) -> ArgumentParser:
        return add_arguments(original(parser))

    return add_megatron_arguments


class MegatronLM(Adapter):
    """The adapter of one process.

    Args:
        run: What it feeds.
    """

    stack = STACK

    def __init__(self, run: CurriculumRun) -> None:
        self._run = run
        self._args: Arguments | None = None

    def info(self) -> RunInfo:
        """Return what Megatron-LM's arguments tell of the run."""
        args = self._args
        assert args is not None
        return RunInfo(
            seed=args.seed,
            consumed_samples=args.consumed_train_samples,
            iteration=getattr(args, "iteration", 0),
            padded_vocab_size=getattr(args, "padded_vocab_size", None),
            loader=args.dataloader_type,
            blends=blends_of(args),
            validation_sets_apart=bool(getattr(args, "multiple_validation_sets", False)),
            global_batch_size=args.global_batch_size,
            micro_batch_size=args.micro_batch_size,
            eval_batch_sizes=run_info.eval_batch_sizes(args),
            sequence_length=args.seq_length,
            train_samples=args.train_samples,
            train_iterations=args.train_iters if args.train_samples is None else None,
            text_warmup_fraction=args.lr_warmup_fraction,
            eval_batches=run_info.eval_batches(args.eval_iters),
            replays_steps=run_info.replays_steps(args),
            args=args,
        )

    def around_validate(self, original: Callable[..., Arguments | None]) -> Callable[..., Arguments | None]:
        """Take our options off Megatron's arguments, attach and validate."""

        def validate_args(args: Arguments, *rest: object, **keywords: object) -> Arguments | None:
            given = take_arguments(args)
            validated = original(args, *rest, **keywords)
            self._args = args if validated is None else validated
            self._run.attach(self)
            with alike_on_every_rank():
                options = Options.read(given, self.stack)
                self._run.validate(options)
            plan = None
            if self._args.train_samples is None:
                plan = self._run.planned_length(BatchBoundaries(self._args.global_batch_size))
            if plan is not None:
                run_length.give_samples(self._args, plan, options.text_restarts)
            return validated

        return validate_args

    def around_length(self, original: Callable[..., T]) -> Callable[..., T]:
        """Count the steps of a run in samples as its samples allow."""

        def update_train_iters(args: Arguments) -> T:
            outcome = original(args)
            if args is self._args and args.train_samples is not None:
                assert args.train_iters is not None
                args.train_iters = self._run.planned_steps(BatchBoundaries.from_megatron(), args.train_iters)
            return outcome

        return update_train_iters

    def around_check_checkpoint(self, original: Callable[..., T]) -> Callable[..., T]:
        """Restore the checkpoint's record; a launch that loads weights alone does not come here."""

        def check_checkpoint_args(checkpoint_args: Arguments, *rest: object, **keywords: object) -> T:
            consumed = int(getattr(checkpoint_args, "consumed_train_samples", 0) or 0)
            self._run.restore(getattr(checkpoint_args, RECORD, None), consumed)
            return original(checkpoint_args, *rest, **keywords)

        return check_checkpoint_args

    def around_save(self, original: Callable[..., T]) -> Callable[..., T]:
        """Put the record among the arguments, which every checkpoint holds."""

        def save_checkpoint(*arguments: object, **keywords: object) -> T:
            if self._args is not None:
                record = self._run.state_dict(self._args.consumed_train_samples)
                if record is not None:
                    setattr(self._args, RECORD, record)
            return original(*arguments, **keywords)

        return save_checkpoint

    def around_train_step(self, original: Callable[..., T]) -> Callable[..., T]:
        """Call the run before every step, and write what it has to say after it."""

        def train_step(
            forward_step: ForwardStep,
            data: object,
            model: Model,
            optimizer: MegatronOptimizer,
            scheduler: OptimizerParamScheduler,
            *rest: object,
            **keywords: object,
        ) -> T:
            run, args = self._run, self._args
            if run.plan is None:
                return original(forward_step, data, model, optimizer, scheduler, *rest, **keywords)
            run.require(self, PAST_ARGUMENTS)
            assert args is not None
            scalars = run.before_step(args.consumed_train_samples, model, optimizer, scheduler)
            outcome = original(run.watch(forward_step), data, model, optimizer, scheduler, *rest, **keywords)
            iteration = args.curr_iteration + 1
            if iteration % args.tensorboard_log_interval == 0:
                _write(scalars, iteration)
            if iteration % args.log_interval == 0:
                _write(run.report_losses(iteration), iteration)
            return outcome

        return train_step

    def around_evaluate(self, original: Callable[..., T]) -> Callable[..., T]:
        """Evaluate NCA after every validation of text, where that was asked for."""

        def evaluate_and_print_results(
            prefix: str, forward_step: object, data: object, model: Model, iteration: int, *rest: object, **keywords: object
        ) -> T:
            outcome = original(prefix, forward_step, data, model, iteration, *rest, **keywords)
            if "test set" not in prefix:
                _write(self._run.evaluate(model, iteration), iteration)
            return outcome

        return evaluate_and_print_results


def _write(scalars: Mapping[str, float], iteration: int) -> None:
    """Write through Megatron's own writers, which only one rank has."""
    from megatron.training.global_vars import get_tensorboard_writer, get_wandb_writer

    write_scalars(get_tensorboard_writer(), get_wandb_writer(), scalars, iteration)
