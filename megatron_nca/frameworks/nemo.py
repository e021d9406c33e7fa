"""NeMo 2: a data module that takes ``nca:`` entries, the callback that carries a run across the switch, and ``with_nca``.

    recipe = with_nca(llm.llama3_8b.pretrain_recipe(), "nca:tokens=164M", "/data/text_document")

The data module adds the callback to its trainer, so that replacing a recipe's ``data`` is all an override has to do. NeMo is
imported where it is used, when this module is; its learning-rate schedulers are not Megatron's, see ``nemo_learning_rate``.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Sequence
from typing import Any

from megatron_nca.data import hook, run
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import Plan
from megatron_nca.data.entry import is_nca, parse_entry
from megatron_nca.errors import CurriculumError, EnvironmentMismatchError, NCAError
from megatron_nca.frameworks import nemo_learning_rate
from megatron_nca.frameworks.megatron_lm import progress
from megatron_nca.training import Transition, TransitionSettings
from megatron_nca.training.learning_rate import PhaseLearningRate
from megatron_nca.training.notes import Note, check_note, make_note

try:
    import lightning.pytorch as lightning
    from nemo.collections.llm.gpt.data import pre_training
except ImportError as error:
    raise EnvironmentMismatchError(
        f"megatron-nca's NeMo adapter needs nemo-toolkit 2.x with nemo.collections.llm (pip install megatron-nca[nemo]), and "
        f"importing it failed: {error}. NeMo 3.0 has no llm collection: its recipes went to Megatron-Bridge, so use "
        "megatron_nca.frameworks.megatron_bridge there"
    ) from error

RESUME_CHOICES = ("before-switch", "after-switch")


def register() -> None:
    """Let ``PreTrainingDataModule`` take ``nca:`` entries; a second call changes nothing."""
    hook.install()
    if hasattr(pre_training.validate_dataset_asset_accessibility, "__wrapped__"):
        return
    # It calls itself by its global name for every member of a list, so that replacing the name reaches each entry.
    pre_training.validate_dataset_asset_accessibility = _let_entries_pass(pre_training.validate_dataset_asset_accessibility)
    pre_training.PreTrainingDataModule.build = _with_boundaries(pre_training.PreTrainingDataModule.build)


def _let_entries_pass(validate: Any) -> Any:
    @functools.wraps(validate)
    def validate_paths(paths: Any) -> None:
        if not (isinstance(paths, str) and is_nca(paths)):
            validate(paths)

    return validate_paths


def _with_boundaries(build: Any) -> Any:
    """Set Megatron's microbatch calculator up before the datasets are built, since NeMo does so after it."""

    @functools.wraps(build)
    def build_with_boundaries(self: Any, *args: Any, **keywords: Any) -> Any:
        if not hasattr(self, "trainer") or self.trainer is None or not _entries_of(self):
            return build(self, *args, **keywords)
        if self.data_sampler.rampup_batch_size is not None:
            raise CurriculumError(
                f"rampup_batch_size={self.data_sampler.rampup_batch_size}: NeMo counts a batch too many after each resume of a "
                "ramp, so no phase could end at its place; leave rampup_batch_size out with nca: entries"
            )
        from megatron.core import num_microbatches_calculator as calculator

        # NeMo's own call, later, accepts a calculator of the same sizes.
        if calculator._GLOBAL_NUM_MICROBATCHES_CALCULATOR is None:
            self.data_sampler.setup(self.trainer.strategy.cluster_environment.global_rank())
        return build(self, *args, **keywords)

    return build_with_boundaries


def _entries_of(data: Any) -> list[str]:
    blends = [data.build_kwargs.get("blend"), *data.build_kwargs.get("blend_per_split", [])]
    return [prefix for blend in blends if blend for prefix in blend[0] if is_nca(prefix)]


class NCADataModule(pre_training.PreTrainingDataModule):
    """NeMo's ``PreTrainingDataModule`` whose ``paths`` may hold ``nca:`` entries, and which brings the transition along.

    Args:
        paths: As PreTrainingDataModule's.
        nca_reinit: Parts to initialise anew at the switch, separated by commas, or ``none``.
        nca_optimizer: ``fresh`` or ``keep``.
        nca_lr_at_switch: ``restart`` or ``continue``.
        nca_lr: Peak of the NCA phases, or None for the recipe's.
        nca_min_lr: Rate at their end, or None for the recipe's.
        nca_lr_warmup_steps: Their warm-up, or None for a tenth of them.
        nca_resume_as: Where a checkpoint without a curriculum stands: ``before-switch``, ``after-switch`` or None.
        nca_override_curriculum: Whether to go on from a checkpoint of another curriculum.
        **options: PreTrainingDataModule's other arguments.

    Raises:
        NCAError: A choice is not usable.
    """

    def __init__(
        self,
        paths: list[str] | dict[str, list[str]],
        nca_reinit: str = "embeddings",
        nca_optimizer: str = "fresh",
        nca_lr_at_switch: str = "restart",
        nca_lr: float | None = None,
        nca_min_lr: float | None = None,
        nca_lr_warmup_steps: int | None = None,
        nca_resume_as: str | None = None,
        nca_override_curriculum: bool = False,
        **options: Any,
    ) -> None:
        register()
        phase = PhaseLearningRate(nca_lr, nca_min_lr)
        settings = TransitionSettings(_parts(nca_reinit), nca_optimizer, nca_lr_at_switch, phase)
        super().__init__(paths, **options)
        self.callback = NCACallback(settings, nca_lr_warmup_steps, nca_resume_as, nca_override_curriculum)

    def setup(self, stage: str = "") -> None:
        """Add the callback to the trainer, then build the datasets."""
        if not any(isinstance(callback, NCACallback) for callback in self.trainer.callbacks):
            self.trainer.callbacks.append(self.callback)
        self.callback.attach(self)
        super().setup(stage)


def _flat_signature() -> inspect.Signature:
    """Name every argument, as NeMo's checkpoints and NeMo-Run's command line read them off the signature."""
    # NeMo-Run's parser reads classes, not their names, and unions only as typing writes them.
    ours = list(inspect.signature(NCADataModule.__init__, eval_str=True).parameters.values())[:-1]
    ours = [item.replace(annotation=_as_typing(item.annotation)) for item in ours]
    theirs = inspect.signature(pre_training.PreTrainingDataModule.__init__).parameters.values()
    return inspect.Signature(ours + [item for item in theirs if item.name not in ("self", "paths")])


def _as_typing(annotation: Any) -> Any:
    return typing.Union[typing.get_args(annotation)] if isinstance(annotation, types.UnionType) else annotation


NCADataModule.__init__.__signature__ = _flat_signature()  # type: ignore[attr-defined]


def _parts(reinit: str) -> tuple[str, ...]:
    return () if reinit == "none" else tuple(part.strip() for part in reinit.split(","))


class NCACallback(lightning.Callback):
    """Calls the transition before every step, keeps the curriculum's note in checkpoints and logs the phase.

    Args:
        settings: What the transition does; ``phase_lr.warmup_samples`` is not used here.
        warmup_steps: Warm-up of the NCA phases in steps, or None for a tenth of them.
        resume_as: Where a checkpoint without a curriculum stands, or None.
        override_curriculum: Whether to go on from a checkpoint of another curriculum.

    Raises:
        NCAError: ``resume_as`` is not one of its choices.
    """

    def __init__(
        self,
        settings: TransitionSettings | None = None,
        warmup_steps: int | None = None,
        resume_as: str | None = None,
        override_curriculum: bool = False,
    ) -> None:
        if resume_as not in (None, *RESUME_CHOICES):
            raise NCAError(f"nca_resume_as={resume_as!r} must be one of {', '.join(RESUME_CHOICES)}")
        self.settings = settings or TransitionSettings()
        self.warmup_steps = warmup_steps
        self.resume_as = resume_as
        self.override_curriculum = override_curriculum
        self.transition: Transition | None = None
        self.loaded: Note | None = None
        self._data: Any = None

    def attach(self, data: Any) -> None:
        """Take the data module whose plan the run follows, before it builds its datasets."""
        self._data = data
        run.set_framework(self)

    def facts(self) -> run.RunFacts:
        """Return what the data module tells of the run; a checkpoint is read later, so positions count from the start."""
        return run.RunFacts(dataloader_type=self._data.dataloader_type)

    def planned(self, plan: Plan | None) -> None:
        """Get ready for the plan's switch."""
        if plan is None:
            return
        self.transition = Transition(plan, self.settings, self._data.seed, report=_print_rank_zero)
        _print_rank_zero(f"megatron-nca: {plan.describe()}")

    def state_dict(self) -> dict[str, Any]:
        """Return the note that travels in every checkpoint."""
        if self.transition is None:
            return {}
        return {"note": make_note(self.transition.plan, self._data.seed, bool(self.transition.done))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a checkpoint's note."""
        self.loaded = state_dict.get("note")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Compare the launch with the checkpoint, and give the learning rate its two schedules."""
        transition = self.transition
        if transition is None:
            return
        if trainer.global_step > 0:
            transition.done = self._transition_done(transition.plan, self._consumed(trainer))
        if self.settings.lr == "restart" and transition.plan.switch is not None:
            switch = BatchBoundaries.from_megatron().batches_until(transition.plan.switch)
            for config in trainer.lr_scheduler_configs:
                nemo_learning_rate.install(config.scheduler, switch, self.settings.phase_lr, self.warmup_steps)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Call the transition."""
        if self.transition is None:
            return
        optimizers = [getattr(optimizer, "mcore_optimizer", optimizer) for optimizer in trainer.optimizers]
        chunks = list(trainer.strategy.megatron_parallel)
        consumed = self._consumed(trainer)
        # The learning rate is NeMo's scheduler's, which has both schedules already.
        self.transition.before_step(consumed, chunks, optimizers[0], None)
        for name, value in progress(self.transition.plan, consumed, self._data.data_sampler.global_batch_size).items():
            pl_module.log(name, value, batch_size=1)

    def _consumed(self, trainer: Any) -> int:
        sampler = self._data.data_sampler
        return sampler.compute_consumed_samples(trainer.global_step - sampler.init_global_step)

    def _transition_done(self, plan: Plan, consumed: int) -> bool:
        if self.loaded is not None:
            if not self.override_curriculum:
                expected = make_note(plan, self._data.seed, False)
                check_note(self.loaded, expected, "nca_override_curriculum=True")
                _check_ends(self.loaded, expected, consumed)
            return bool(self.loaded["transition_done"])
        if self.resume_as is None:
            raise CurriculumError(
                f"the checkpoint, at {consumed:,} samples, was written without nca: entries, so it does not say where it "
                "stands; give nca_resume_as='before-switch' (the transition is still to come) or 'after-switch' (its "
                "embeddings are the text's)"
            )
        return self.resume_as == "after-switch"


def _check_ends(found: Note, expected: Note, consumed: int) -> None:
    """Refuse another global batch size that would move the end of a phase that has ended."""
    for before, now in zip(found["phase_ends"], expected["phase_ends"], strict=True):
        if before != now and min(before, now) <= consumed:
            raise CurriculumError(
                f"a phase ended after {before:,} samples, and with this launch's global_batch_size would have ended after "
                f"{now:,}; resume with the global_batch_size of the checkpoint"
            )


def with_nca(recipe: Any, *paths: str, **settings: Any) -> Any:
    """Override a pre-training recipe's data.

    Args:
        recipe: A NeMo-Run Partial with ``data``, as ``llm.llama3_8b.pretrain_recipe()`` returns it; changed in place.
        *paths: A whole data path, weights included, as after Megatron-LM's ``--data-path``; or phases alone
            (``nca:tokens=164M``), which then come before the recipe's own paths.
        **settings: ``NCADataModule``'s ``nca_`` arguments, and any of PreTrainingDataModule's.

    Returns:
        The recipe.

    Raises:
        NCAError: The recipe has no data, mock data and no text is given, or it has been overridden before.
    """
    import nemo_run

    unknown = sorted(set(settings) - set(_arguments()))
    if unknown:
        raise NCAError(f"with_nca: {unknown[0]}= is no argument of NCADataModule; it takes {', '.join(_arguments())}")
    data = getattr(recipe, "data", None)
    if data is None:
        raise NCAError("with_nca: the recipe has no data; give it a data module first, or use a pre-training recipe")
    own = getattr(data, "paths", None)
    if _mentions_nca(own):
        raise NCAError(f"with_nca: the recipe has been overridden already, its paths are {own}; call it once, with every entry")
    options = {name: value for name, value in data.__arguments__.items() if name in _arguments()}
    options |= settings | {"paths": _joined(paths, own, data)}
    recipe.data = nemo_run.Config(NCADataModule, **options)
    return recipe


def _arguments() -> list[str]:
    return list(inspect.signature(NCADataModule).parameters)


def _mentions_nca(paths: Any) -> bool:
    if isinstance(paths, dict):
        return any(_mentions_nca(part) for part in paths.values())
    return any(isinstance(path, str) and is_nca(path) for path in _as_list(paths))


def _as_list(paths: Any) -> list[Any]:
    if paths is None:
        return []
    return list(paths) if isinstance(paths, (list, tuple)) else [paths]


def _joined(paths: Sequence[str], own: Any, data: Any) -> Any:
    if not any(is_nca(path) for path in paths):
        raise NCAError(f"with_nca: {list(paths)} has no nca: entry; give one, as in with_nca(recipe, 'nca:tokens=164M')")
    if not all(is_nca(path) and parse_entry(path).is_phase for path in paths):
        return list(paths)
    if not own:
        kind = data.__fn_or_cls__.__name__
        raise NCAError(
            f"with_nca: the recipe's data is {kind} without paths, so nothing follows {paths[-1]!r}; give the text too, as in "
            f"with_nca(recipe, {paths[-1]!r}, '/data/text_document')"
        )
    if isinstance(own, dict):
        return {**own, "train": _before(paths, _as_list(own["train"]))}
    return _before(paths, _as_list(own))


def _before(phases: Sequence[str], paths: list[Any]) -> list[Any]:
    """Put phases before paths, with weights where those have them."""
    if pre_training.is_zipped_list([str(path) for path in paths]):
        return [item for phase in phases for item in ("1", phase)] + paths
    return [*phases, *paths]


def _print_rank_zero(message: str) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    rank_zero_only(print)(message, flush=True)


__all__ = ["NCACallback", "NCADataModule", "register", "with_nca"]
