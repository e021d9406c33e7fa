"""Megatron-LM: flags, checkpoint notes, the hook before every step and the scalars of its writers.

Everything hangs on six functions of ``megatron.training`` that have kept their names and first arguments from 0.14 to 0.19:
``add_megatron_arguments``, ``validate_args``, ``check_checkpoint_args``, ``train_step``, ``evaluate_and_print_results`` and
``get_args``. Without an ``nca:`` entry each of them does what it always did.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from megatron.core import parallel_state
from megatron.core.num_microbatches_calculator import get_current_running_global_batch_size

from megatron_nca.data import run
from megatron_nca.data.curriculum import Plan, mentions_nca, read_blend
from megatron_nca.errors import CurriculumError, EnvironmentMismatchError
from megatron_nca.frameworks.flags import Flags, add_flags, take_flags
from megatron_nca.frameworks.replacing import replace
from megatron_nca.frameworks.source_losses import MicroBatches, SourceLosses
from megatron_nca.training import Transition
from megatron_nca.training.notes import NOTE, Note, check_note, ended_phases, make_note


def available() -> bool:
    """Tell whether ``megatron.training`` can be imported."""
    try:
        return importlib.util.find_spec("megatron.training") is not None
    except ModuleNotFoundError:
        return False


def install() -> MegatronLM:
    """Hook Megatron-LM; a second call returns the first one's adapter.

    Raises:
        EnvironmentMismatchError: This Megatron-LM lacks one of the functions.
    """
    training = importlib.import_module("megatron.training.training")
    installed = getattr(training.train_step, "__nca_adapter__", None)
    if installed is not None:
        return installed
    adapter = MegatronLM()
    run.set_framework(adapter)
    _wrap("megatron.training.arguments", "add_megatron_arguments", _with_flags)
    _wrap("megatron.training.arguments", "validate_args", adapter.around_validate)
    _wrap("megatron.training.checkpointing", "check_checkpoint_args", adapter.around_check_checkpoint)
    _wrap("megatron.training.training", "train_step", adapter.around_train_step)
    _wrap("megatron.training.training", "evaluate_and_print_results", adapter.around_evaluate)
    training.train_step.__nca_adapter__ = adapter
    return adapter


def _wrap(module_name: str, function_name: str, wrapper: Callable[[Any], Any]) -> None:
    """Replace a function wherever Megatron-LM's modules have imported it by name."""
    module = importlib.import_module(module_name)
    if not hasattr(module, function_name):
        raise EnvironmentMismatchError(f"{module_name} has no {function_name}; megatron-nca knows Megatron-LM 0.14 to 0.19")
    replace(module, function_name, wrapper, "megatron.training")


def _with_flags(original: Any) -> Any:
    def add_megatron_arguments(parser: Any) -> Any:
        return add_flags(original(parser))

    return add_megatron_arguments


class MegatronLM:
    """The adapter of one process."""

    def __init__(self) -> None:
        self.flags = Flags()
        self.transition: Transition | None = None
        self.source_losses: SourceLosses | None = None
        self.loaded: tuple[Note | None] | None = None
        self._args: Any = None

    def facts(self) -> run.RunFacts:
        """Return what Megatron-LM's arguments tell of the run."""
        args = self._args
        if args is None:
            return run.RunFacts()
        note = self.loaded[0] if self.loaded else None
        return run.RunFacts(
            padded_vocab_size=getattr(args, "padded_vocab_size", None),
            dataloader_type=args.dataloader_type,
            consumed_samples=args.consumed_train_samples,
            ended_phases=ended_phases(note, args.consumed_train_samples),
        )

    def planned(self, plan: Plan | None) -> None:
        """Compare the plan with the checkpoint's, note it for the next one, and get ready for its switch."""
        if plan is None or self._args is None:
            return
        args, first = self._args, self.transition is None
        done = self._transition_done(plan)
        setattr(args, NOTE, make_note(plan, args.seed, bool(done)))
        self.transition = Transition(plan, self.flags.transition, args.seed, report=_print_rank_0)
        self.transition.done = done
        self.source_losses = None if _replays_its_steps(args) else SourceLosses(plan)
        if first:
            _print_rank_0(f"megatron-nca: {plan.describe()}{_iterations(plan)}")

    def _transition_done(self, plan: Plan) -> bool | None:
        """Tell whether the loaded checkpoint lies behind the transition; None for a run that starts."""
        args = self._args
        if self.loaded is None or plan.switch is None:
            if self.loaded is not None and self.loaded[0] is not None:
                self._check_note(self.loaded[0], plan)
            return None
        note = self.loaded[0]
        if note is not None:
            self._check_note(note, plan)
            return bool(note["transition_done"])
        if self.flags.resume_as is None:
            raise CurriculumError(
                f"the checkpoint, at {args.consumed_train_samples:,} samples, was written without nca: entries, so it does not "
                "say where it stands; give --nca-resume-as before-switch (the transition is still to come) or after-switch "
                "(its embeddings are the text's), or --finetune to start the curriculum with its weights"
            )
        return self.flags.resume_as == "after-switch"

    def _check_note(self, note: Note, plan: Plan) -> None:
        if not self.flags.override_curriculum:
            check_note(note, make_note(plan, self._args.seed, False), "--nca-override-curriculum")

    def around_validate(self, original: Any) -> Any:
        """Take our flags off Megatron's arguments and refuse early what cannot work."""

        def validate_args(args: Any, *rest: Any, **keywords: Any) -> Any:
            given = take_flags(args)
            validated = original(args, *rest, **keywords)
            checked = args if validated is None else validated
            self.flags = Flags.read(given, checked)
            if _wants_curriculum(checked):
                self._args = checked
                _check_args(checked)
            elif given.keys() - {"nca_override_curriculum"}:
                flag = "--" + next(iter(given)).replace("_", "-")
                raise CurriculumError(f"{flag} is given, but no data path has an nca: entry; add one, or leave the flag out")
            return validated

        return validate_args

    def around_check_checkpoint(self, original: Any) -> Any:
        """Remember the checkpoint's note; datasets, and so the plan, are built after loading."""

        def check_checkpoint_args(checkpoint_args: Any, *rest: Any, **keywords: Any) -> Any:
            note = getattr(checkpoint_args, NOTE, None)
            self.loaded = (note,)
            if note is not None and self._args is None and not self.flags.override_curriculum:
                raise CurriculumError(
                    "the checkpoint was written under a curriculum, and this launch has no nca: entry, so its text would "
                    f"start at another sample:\n  phases: {note['phases']}\n  blended: {note['blended']}\nGive the same "
                    "entries again, also after the switch, or --nca-override-curriculum"
                )
            return original(checkpoint_args, *rest, **keywords)

        return check_checkpoint_args

    def around_train_step(self, original: Any) -> Any:
        """Call the transition before every step, and write the scalars after it."""

        def train_step(
            forward_step: Any, data: Any, model: Any, optimizer: Any, scheduler: Any, *rest: Any, **keywords: Any
        ) -> Any:
            transition = self.transition
            if transition is None:
                return original(forward_step, data, model, optimizer, scheduler, *rest, **keywords)
            args = self._args
            if transition.before_step(args.consumed_train_samples, model, optimizer, scheduler):
                getattr(args, NOTE)["transition_done"] = True
            outcome = original(self._watch(forward_step), data, model, optimizer, scheduler, *rest, **keywords)
            iteration = args.curr_iteration + 1
            if iteration % args.tensorboard_log_interval == 0:
                batch = get_current_running_global_batch_size()
                _write_scalars(progress(transition.plan, args.consumed_train_samples, batch), iteration)
            if self.source_losses is not None and iteration % args.log_interval == 0:
                self._report_losses(iteration)
            return outcome

        return train_step

    def _watch(self, forward_step: Any) -> Any:
        """Return the forward step, watched if this step mixes NCA and text."""
        args, batch = self._args, get_current_running_global_batch_size()
        if self.source_losses is None or not self.source_losses.covers(args.consumed_train_samples, batch):
            return forward_step
        rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
        size = args.micro_batch_size
        step = MicroBatches(args.consumed_train_samples, size, rank, ranks, batch // (size * ranks))
        return self.source_losses.watch(forward_step, step)

    def _report_losses(self, iteration: int) -> None:
        assert self.source_losses is not None
        losses = self.source_losses.report()
        if losses:
            each = " | ".join(f"{name.split('/')[0]} loss: {loss:.6E}" for name, loss in losses.items())
            _print_rank_last(f"megatron-nca: iteration {iteration} | {each}")
            _write_scalars(losses, iteration)

    def around_evaluate(self, original: Any) -> Any:
        """Evaluate NCA after every validation of text, where that was asked for."""

        def evaluate_and_print_results(
            prefix: str, forward_step: Any, data: Any, model: Any, iteration: int, *rest: Any, **keywords: Any
        ) -> Any:
            outcome = original(prefix, forward_step, data, model, iteration, *rest, **keywords)
            if self.transition is not None and self.flags.valid_batches is not None and "test set" not in prefix:
                self._validate(model, iteration)
            return outcome

        return evaluate_and_print_results

    def _validate(self, model: Any, iteration: int) -> None:
        from megatron_nca.frameworks.nca_validation import validate

        assert self.transition is not None
        args = self._args
        text_batches = max(args.eval_iters) if isinstance(args.eval_iters, list) else args.eval_iters
        results = validate(self.transition.plan, model, args, self.flags.valid_batches or text_batches)
        for number, result in enumerate(results, 1):
            _print_rank_last(f"megatron-nca: validation at iteration {iteration} | {result.describe()}")
            _write_scalars(result.scalars(f"/{number}" if len(results) > 1 else ""), iteration)


def _write_scalars(scalars: dict[str, float], iteration: int) -> None:
    """Write through Megatron's own writers, which only one rank has."""
    from megatron.training.global_vars import get_tensorboard_writer, get_wandb_writer

    tensorboard, wandb = get_tensorboard_writer(), get_wandb_writer()
    if tensorboard is not None:
        for name, value in scalars.items():
            tensorboard.add_scalar(name, value, iteration)
    if wandb:
        wandb.log(scalars, iteration)


def progress(plan: Plan, consumed_samples: int, batch: int) -> dict[str, float]:
    """Return the scalars of the step that reads ``batch`` samples after ``consumed_samples``.

    Returns:
        ``nca/phase`` (0 for the first, the number of phases for the final blend), ``nca/share`` of the step's samples, and
        ``nca/tokens`` and ``text/tokens`` read so far.
    """
    before, after = (plan.schedule.counts(samples) for samples in (consumed_samples, consumed_samples + batch))
    entries = len(plan.curriculum.entries)
    nca = sum(after[:entries])
    return {
        "nca/phase": sum(consumed_samples >= phase.end for phase in plan.phases),
        "nca/share": (nca - sum(before[:entries])) / batch,
        "nca/tokens": nca * plan.sequence_length,
        "text/tokens": sum(after[entries:]) * plan.sequence_length,
    }


def _wants_curriculum(args: Any) -> bool:
    return any(mentions_nca(blend) for blend in _blends(args))


def _blends(args: Any) -> list[Any]:
    from megatron.training.utils import get_blend_and_blend_per_split

    if getattr(args, "mock_data", False):
        return []
    blend, per_split = get_blend_and_blend_per_split(args)
    return [blend, *(per_split or [])]


def _check_args(args: Any) -> None:
    """Refuse before the model is built what the builder would refuse after it."""
    for blend in _blends(args):
        if mentions_nca(blend):
            read_blend(blend, mixed=not getattr(args, "multiple_validation_sets", False))
    if args.dataloader_type not in (None, "single"):
        raise CurriculumError(
            f"nca: entries need --dataloader-type single, which reads samples in order; with {args.dataloader_type!r} no token "
            "count can be kept"
        )
    if getattr(args, "phase_transition_iterations", None):
        raise CurriculumError(
            "--phase-transition-iterations restarts the data at given iterations, nca: phases place it by consumed samples; "
            "give one or the other"
        )


def _iterations(plan: Plan) -> str:
    from megatron_nca.data.batches import BatchBoundaries

    boundaries = BatchBoundaries.from_megatron()
    ends = [f"{boundaries.batches_until(phase.end):,}" for phase in plan.phases]
    return f"; phases end after iterations {', '.join(ends)}" if ends else ""


def _print_rank_0(message: str) -> None:
    from megatron.training.utils import print_rank_0

    print_rank_0(message)


def _print_rank_last(message: str) -> None:
    from megatron.training.utils import print_rank_last

    print_rank_last(message)


def _replays_its_steps(args: Any) -> bool:
    """Tell whether a CUDA graph replays whole steps, so that no Python runs in them."""
    scopes = getattr(args, "cuda_graph_scope", None) or ()
    names = [str(scope) for scope in scopes] if isinstance(scopes, (list, tuple)) else [str(scopes)]
    return getattr(args, "cuda_graph_impl", None) == "full_iteration" or any("full_iteration" in name for name in names)
