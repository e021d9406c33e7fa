"""Megatron-Bridge: ``with_nca`` for its configs, and the callback that carries a run across the switch.

    cfg = with_nca(llama3_8b_pretrain_config(), "nca:tokens=164M", "/data/text_document")
    pretrain(cfg, forward_step)

The callback goes into every ``pretrain`` by itself; a script names it where it has settings of its own. The curriculum's note
is a tensor in Bridge's train state, which every checkpoint holds. Bridge reads the checkpoint before it builds the datasets,
and tells callbacks of it after that.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

from megatron_nca.data import hook, run
from megatron_nca.data.curriculum import Plan
from megatron_nca.data.entry import is_nca, parse_entry
from megatron_nca.errors import CurriculumError, EnvironmentMismatchError, NCAError
from megatron_nca.frameworks import bridge_launch
from megatron_nca.training import Transition, TransitionSettings
from megatron_nca.training.notes import Note, check_note, make_note

try:
    from megatron.bridge.training.callbacks import Callback
    from megatron.bridge.training.state import TrainState
except ImportError as error:
    raise EnvironmentMismatchError(
        f"megatron-nca's Bridge adapter needs Megatron-Bridge 0.3 or later and Transformer Engine, and importing it "
        f"failed: {error}"
    ) from error

NOTE = "nca_curriculum"
"""Attribute of a train state, and its key in checkpoints."""


def register() -> None:
    """Let the dataset builder take entries, and Bridge carry notes and callback; a second call changes nothing."""
    hook.install()
    bridge_launch.install()
    if hasattr(TrainState.state_dict, "__wrapped__"):
        return
    TrainState.state_dict = _with_note(TrainState.state_dict)
    TrainState.load_state_dict = _taking_note(TrainState.load_state_dict)


def _with_note(state_dict: Any) -> Any:
    @functools.wraps(state_dict)
    def state_dict_with_note(self: Any) -> Any:
        import torch

        state, note = state_dict(self), getattr(self, NOTE, None)
        if note is not None:
            state[NOTE] = torch.frombuffer(bytearray(json.dumps(note).encode()), dtype=torch.uint8)
        return state

    return state_dict_with_note


def _taking_note(load_state_dict: Any) -> Any:
    @functools.wraps(load_state_dict)
    def load_state_dict_with_note(self: Any, state: Any) -> None:
        load_state_dict(self, state)
        if NOTE in state:
            setattr(self, NOTE, json.loads(bytes(state[NOTE].tolist())))

    return load_state_dict_with_note


class NCACallback(Callback):
    """Calls the transition before every step and keeps the curriculum's note in the train state.

    Args:
        settings: What the transition does.
        seed: Of the new embeddings and the note; None for the config's ``rng.seed``.
        override_curriculum: Whether to go on from a checkpoint of another curriculum.
    """

    def __init__(
        self, settings: TransitionSettings | None = None, seed: int | None = None, override_curriculum: bool = False
    ) -> None:
        register()
        self.settings = settings or TransitionSettings()
        self.seed = seed
        self.override_curriculum = override_curriculum
        self.plan: Plan | None = None
        self.transition: Transition | None = None
        run.set_framework(self)

    def facts(self) -> run.RunFacts:
        """Return no facts: Bridge builds datasets without telling its callbacks of the run."""
        return run.RunFacts()

    def planned(self, plan: Plan | None) -> None:
        """Keep the plan until training starts."""
        self.plan = plan
        if plan is not None:
            _print_rank_0(f"megatron-nca: {plan.describe()}")

    def on_train_start(self, context: Any) -> None:
        """Get ready for the plan's switch, and compare the launch with the checkpoint."""
        if self.plan is None:
            return
        config = context.state.cfg
        seed = config.rng.seed if self.seed is None else self.seed
        settings = self.settings
        if settings.text_warmup_fraction is None:
            settings = dataclasses.replace(settings, text_warmup_fraction=config.scheduler.lr_warmup_fraction)
        self.transition = Transition(self.plan, settings, seed, report=_print_rank_0)
        state = context.state.train_state
        expected = make_note(self.plan, seed, False)
        found = getattr(state, NOTE, None)
        if found is not None:
            if not self.override_curriculum:
                check_note(found, expected, "NCACallback(override_curriculum=True)")
                _check_ends(found, expected, state.consumed_train_samples)
            self.transition.done = bool(found["transition_done"])
        elif state.consumed_train_samples > 0:
            raise CurriculumError(
                f"the checkpoint, at {state.consumed_train_samples:,} samples, was written without nca: entries, so it does "
                "not say where it stands; load it as checkpoint.pretrained_checkpoint, to start the curriculum with its weights"
            )
        setattr(state, NOTE, {**expected, "transition_done": bool(self.transition.done)})

    def on_train_step_start(self, context: Any) -> None:
        """Call the transition."""
        if self.transition is None:
            return
        state = context.state.train_state
        if self.transition.before_step(state.consumed_train_samples, context.model, context.optimizer, context.scheduler):
            getattr(state, NOTE)["transition_done"] = True


def _check_ends(found: Note, expected: Note, consumed: int) -> None:
    """Refuse another global batch size that would move the end of a phase that has ended."""
    for before, now in zip(found["phase_ends"], expected["phase_ends"], strict=True):
        if before != now and min(before, now) <= consumed:
            raise CurriculumError(
                f"a phase ended after {before:,} samples, and with this launch's train.global_batch_size would have ended "
                f"after {now:,}; resume with the batch size of the checkpoint"
            )


def with_nca(cfg: Any, *paths: str) -> Any:
    """Put ``nca:`` entries into a pre-training config.

    Args:
        cfg: Bridge's ConfigContainer, or anything with a ``dataset`` that has a ``blend``; changed in place.
        *paths: A whole data path, weights included, or phases alone, which then come before the config's own blend.

    Returns:
        The config.

    Raises:
        NCAError: The config has no blend and no text is given, its dataset takes none, or it has been overridden before.
    """
    from megatron.core.datasets.utils import get_blend_from_list

    register()
    dataset: Any = getattr(cfg, "dataset", None)
    if not hasattr(dataset, "blend") or getattr(dataset, "mock", False):
        raise NCAError(
            f"with_nca: cfg.dataset is {type(dataset).__name__}, which reads no data path; give the config a GPTDatasetConfig"
        )
    if not any(is_nca(path) for path in paths):
        raise NCAError(f"with_nca: {list(paths)} has no nca: entry; give one, as in with_nca(cfg, 'nca:tokens=164M')")
    blend = _own_blend(dataset)
    own = [prefix for blend in (blend, *(dataset.blend_per_split or [])) if blend for prefix in blend[0]]
    if any(is_nca(prefix) for prefix in own):
        raise NCAError(f"with_nca: the config has been overridden already, its data are {own}; call it once, with every entry")
    if not all(is_nca(path) and parse_entry(path).is_phase for path in paths):
        dataset.blend, dataset.blend_per_split = get_blend_from_list(list(paths)), None
    elif dataset.blend_per_split:
        dataset.blend_per_split = [_before(paths, dataset.blend_per_split[0]), *dataset.blend_per_split[1:]]
    else:
        dataset.blend = _before(paths, blend)
    return cfg


def _own_blend(dataset: Any) -> Any:
    """Return the blend that Bridge would read, which since 0.4 may be written as a data path."""
    from megatron.core.datasets.utils import get_blend_from_list

    path = getattr(dataset, "data_path", None)
    if dataset.blend is not None or not path:
        return dataset.blend
    return get_blend_from_list(path.split() if isinstance(path, str) else list(path))


def _before(phases: Sequence[str], blend: Any) -> Any:
    if not blend:
        raise NCAError(
            f"with_nca: cfg.dataset.blend is {blend}, which means mock data, so nothing follows {phases[-1]!r}; give the text "
            f"too, as in with_nca(cfg, {phases[-1]!r}, '/data/text_document')"
        )
    prefixes, weights = blend
    return [*phases, *prefixes], None if weights is None else [1.0] * len(phases) + list(weights)


def _print_rank_0(message: str) -> None:
    import torch

    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        print(message, flush=True)
