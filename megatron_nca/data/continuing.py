"""The plan of a run's start: of one that begins, or of one that goes on from what its checkpoint's record tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from megatron_nca.data.amending import Amendment, Blended, amend, history_of, replay
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import Plan, Source, plan_training
from megatron_nca.data.data_path import Curriculum, Stage, read_blend
from megatron_nca.data.history import History
from megatron_nca.data.run import DataInfo
from megatron_nca.data.writing import write_words


def changes(curriculum: Curriculum, info: DataInfo) -> bool:
    """Tell whether a launch changes the run's data path: it asks to, and its data path is not the one that holds already."""
    if not info.amends or info.history is None or info.consumed_samples == 0:
        return False
    now = read_blend((info.history.segments[-1].words, None))
    return _form(curriculum) != _form(_renamed(now, _by_place(now, curriculum)))


def _form(curriculum: Curriculum) -> tuple[str, ...]:
    """Write a curriculum without its batches, which may be others at every start."""
    return write_words(Curriculum(tuple(replace(stage, batch=None) for stage in curriculum.stages)))


def _by_place(one: Curriculum, other: Curriculum) -> Mapping[str, str]:
    """Take the texts of two curricula for the same, in their order."""
    return dict(zip(one.prefixes, other.prefixes, strict=False)) if len(one.prefixes) == len(other.prefixes) else {}


def _renamed(curriculum: Curriculum, names: Mapping[str, str]) -> Curriculum:
    def renamed(stage: Stage) -> Stage:
        return replace(stage, texts=tuple(names.get(prefix, prefix) for prefix in stage.texts))

    return Curriculum(tuple(renamed(stage) for stage in curriculum.stages))


def unread_blend(curriculum: Curriculum, info: DataInfo, sequence_length: int) -> tuple[Source, int] | None:
    """Find the blend of Megatron's whose members a change makes sources of their own.

    Returns:
        The blend and how many samples it has given, or None where there is none.
    """
    if not changes(curriculum, info) or info.history is None:
        return None
    earlier = replay(info.history, sequence_length)
    reached = earlier.schedule.reached(info.consumed_samples)
    return next(
        ((source, count) for source, count in zip(earlier.sources, reached, strict=True) if len(source.names) > 1), None
    )


def plan_start(
    curriculum: Curriculum,
    sequence_length: int,
    samples: int,
    boundaries: BatchBoundaries,
    info: DataInfo,
    blended: Blended,
    identity: Callable[[str], str],
) -> Plan:
    """Lay out the run that a launch starts or goes on with.

    Args:
        curriculum: The launch's.
        sequence_length: Tokens of a sample.
        samples: Training samples of the whole run.
        boundaries: The run's own batches, from this start on.
        info: What is known of the run, its history with them.
        blended: What the members of Megatron's blend have given, where a data path changes.
        identity: Tells a text from another, wherever it lies.

    Raises:
        NCAError: The data path does not fit the run.
    """
    history = info.history
    if history is None or info.consumed_samples == 0:
        return plan_training(curriculum, sequence_length, samples, boundaries, info.ended_phases, info.iterations)
    now, last = read_blend((history.segments[-1].words, None)), history.segments[-1]
    if changes(curriculum, info):
        names = _names(history, now, info.texts, identity)
        amendment = Amendment(curriculum, info.consumed_samples, blended)
        earlier = replay(history, sequence_length, None, _from_start(boundaries, info))
        return amend(earlier, amendment, samples, boundaries, (), info.iterations, names)
    moved = {there: name for name, there in _by_place(now, curriculum).items()}
    if len(history.segments) > 1:
        earlier = replay(history, sequence_length, -1, _from_start(boundaries, info))
        amendment = Amendment(curriculum, last.begin, {}, last.first)
        names = lambda prefix: moved.get(prefix, prefix)  # noqa: E731
        return amend(earlier, amendment, samples, boundaries, info.ended_phases, info.iterations, names)
    plan = plan_training(curriculum, sequence_length, samples, boundaries, info.ended_phases, info.iterations)
    return replace(plan, sources=tuple(_called(source, moved) for source in plan.sources))


def _from_start(boundaries: BatchBoundaries, info: DataInfo) -> BatchBoundaries | None:
    """Return the run's batches where they hold from its start."""
    return boundaries if info.batches_from < info.consumed_samples else None


def _called(source: Source, moved: Mapping[str, str]) -> Source:
    names = tuple(moved.get(prefix, prefix) for prefix in source.prefixes)
    return source if names == source.prefixes else replace(source, called=names)


def _names(
    history: History, now: Curriculum, identities: tuple[str, ...], identity: Callable[[str], str]
) -> Callable[[str], str]:
    """Return what the run calls a text: by its prefix, or by what it is where it lies elsewhere."""
    known = {word for reading in history.readings for word in reading.words}
    by_identity = {what: name for name, what in zip(now.prefixes, identities, strict=False) if what}

    def name(prefix: str) -> str:
        return prefix if prefix in known else by_identity.get(identity(prefix), prefix)

    return name


def continued_history(plan: Plan, info: DataInfo, blended: Blended) -> History:
    """Return the history of a plan, what an earlier start has asked for with it."""
    return history_of(plan, info.history if info.consumed_samples else None, blended)
