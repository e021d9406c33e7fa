"""A curriculum changed in mid-run: every source goes on at its next unread sample, new ones begin at their first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from megatron_nca.data.batches import BatchBoundaries, PhaseBatch
from megatron_nca.data.curriculum import Numbering, Phase, Plan, Source, lay_out, plan_training, read_blend
from megatron_nca.data.data_path import Curriculum, process_of
from megatron_nca.data.entry import NCAEntry
from megatron_nca.data.history import History, Reading, Segment
from megatron_nca.data.schedule import AmendedSchedule
from megatron_nca.data.writing import write_entry, write_words
from megatron_nca.errors import CurriculumError

Blended = Mapping[str, tuple[tuple[int, ...], int]]
"""Members of a text that Megatron blends: prefix -> (samples asked of it, whenever it was more; samples given)."""


@dataclass(frozen=True)
class Amendment:
    """A data path that holds from a position on.

    Attributes:
        curriculum: What it says.
        begin: Consumed samples from which it holds.
        blended: What the members of an earlier blend of Megatron's have given by then; every one that goes on is there.
        first: Sample at which each source known before goes on; None to compute it.
    """

    curriculum: Curriculum
    begin: int
    blended: Blended
    first: tuple[int, ...] | None = None


def amend(
    earlier: Plan,
    amendment: Amendment,
    samples: int,
    boundaries: BatchBoundaries,
    ended_phases: Sequence[int] = (),
    iterations: int | None = None,
    moved: Callable[[str], str] = str,
) -> Plan:
    """Lay a run out whose data path changes.

    Args:
        earlier: The plan that held before.
        amendment: What holds from where on.
        samples: Training samples of the whole run.
        boundaries: Where global batches begin, from this start of the run on; or from the run's, as the earlier plan's then do.
        ended_phases: Consumed samples at which phases of the amendment have ended.
        iterations: Steps from where the boundaries begin, where the run's length was given in steps.
        moved: A prefix of the launch -> what the run has called that text so far.

    Returns:
        The plan of the whole run.

    Raises:
        NCAError: The data path does not fit the run.
    """
    begin, curriculum = amendment.begin, amendment.curriculum
    _check_weights(curriculum)
    sources, numbering = _join(earlier.sources, curriculum, moved)
    kept = _phase_batches_until(earlier, begin) if boundaries.begin < begin else ()
    if iterations is not None and boundaries.begin < begin:
        iterations -= earlier.batches.batches_until(begin)
    layout = lay_out(
        curriculum, earlier.sequence_length, samples - begin, _from(boundaries, begin),
        [end - begin for end in ended_phases], iterations, numbering, len(sources),
    )  # fmt: skip
    schedule = AmendedSchedule(earlier.schedule, begin, layout.schedule, _first(earlier, amendment, sources))
    phases = tuple(Phase(phase.stage, phase.begin + begin, phase.end + begin, phase.ramp) for phase in layout.phases)
    batches = _with_phase_batches(boundaries, kept, layout.batches, begin)
    return Plan(curriculum, earlier.sequence_length, layout.samples + begin, phases, schedule, sources, batches, earlier, begin)


def _check_weights(curriculum: Curriculum) -> None:
    for stage in curriculum.stages:
        if stage.weights is None and len(stage.texts) > 1:
            raise CurriculumError(
                f"data path: {stage.text!r} has texts without weights, and each of them goes on where the run has left it; "
                "write 'WEIGHT PREFIX' for each of them"
            )


def _from(boundaries: BatchBoundaries, begin: int) -> BatchBoundaries:
    """Return boundaries counted from a position."""
    steps = {max(position - begin, 0): size for position, size in boundaries.steps}
    return BatchBoundaries(begin=max(boundaries.begin - begin, 0), steps=sorted(steps.items()))


def _phase_batches_until(earlier: Plan, begin: int) -> tuple[PhaseBatch, ...]:
    """Return the batches of an earlier plan's phases up to a position."""
    phases = (one for one in earlier.batches.phase_batches if one.begin < begin)
    return tuple(one._replace(end=begin if one.end is None else min(one.end, begin)) for one in phases)


def _with_phase_batches(
    boundaries: BatchBoundaries, earlier: tuple[PhaseBatch, ...], local: BatchBoundaries, begin: int
) -> BatchBoundaries:
    """Return a run's boundaries with the batches of phases' own, the local ones counted from a position."""
    moved = (
        PhaseBatch(one.begin + begin, None if one.end is None else one.end + begin, one.size) for one in local.phase_batches
    )
    return BatchBoundaries(begin=boundaries.begin, steps=boundaries.steps, phase_batches=(*earlier, *moved))


def _join(known: Sequence[Source], curriculum: Curriculum, moved: Callable[[str], str]) -> tuple[tuple[Source, ...], Numbering]:
    """Find the sources of a curriculum among those that a run knows, and add the others."""
    sources = list(known)
    entries: list[int] = []
    for entry in curriculum.entries:
        number = next(
            (number for number, source in enumerate(known) if number not in entries and _is_same(source, entry)), None
        )
        if number is None:
            sources.append(Source(entry, _free_stream(sources, entry)))
            number = len(sources) - 1
        else:
            sources[number] = replace(sources[number], entry=entry)
        entries.append(number)
    texts: dict[str, int] = {}
    for prefix in curriculum.prefixes:
        name = moved(prefix)
        number = next((number for number, source in enumerate(sources) if source.names == (name,)), None)
        if number is None:
            sources.append(Source(prefixes=(prefix,), called=(name,)))
            number = len(sources) - 1
        elif number in texts.values():
            raise CurriculumError(
                f"data path: {prefix!r} is the text {name!r} of this run, which stands there too; give it once"
            )
        else:
            sources[number] = replace(sources[number], prefixes=(prefix,), called=(name,))
        texts[prefix] = number
    return tuple(sources), Numbering(tuple(entries), texts, False)


def _is_same(source: Source, entry: NCAEntry) -> bool:
    return source.entry is not None and write_entry(source.entry) == write_entry(entry)


def _free_stream(sources: Sequence[Source], entry: NCAEntry) -> int:
    taken = [source.stream for source in sources if source.entry and process_of(source.entry) == process_of(entry)]
    return max(taken, default=-1) + 1


def _first(earlier: Plan, amendment: Amendment, sources: Sequence[Source]) -> tuple[int, ...]:
    """Return where each source goes on."""
    if amendment.first is not None:
        return amendment.first + (0,) * (len(sources) - len(amendment.first))
    reached = earlier.schedule.reached(amendment.begin)
    first = [*reached, *(0 for _ in range(len(sources) - len(reached)))]
    members = {name for source in earlier.sources if len(source.names) > 1 for name in source.names}
    for number in range(len(reached), len(sources)):
        if members.intersection(sources[number].names):
            first[number] = amendment.blended[sources[number].names[0]][1]
    return tuple(first)


def history_of(plan: Plan, before: History | None = None, blended: Blended | None = None) -> History:
    """Return what a record keeps of a plan.

    Args:
        plan: The plan of the whole run.
        before: The history of an earlier start.
        blended: For an amendment, what the members of an earlier blend have been asked for.
    """
    known = before.readings if before else ()
    wanted = plan.schedule.reached(plan.samples)
    readings = []
    for number, source in enumerate(plan.sources):
        reading = known[number] if number < len(known) else _reading(source, blended or {})
        readings.append(reading if source.is_nca else reading.asking(wanted[number]))
    return History(tuple(_segments(plan)), tuple(readings))


def _reading(source: Source, blended: Blended) -> Reading:
    if source.entry is not None:
        return Reading((write_entry(source.entry),), source.stream)
    asked = blended[source.names[0]][0] if len(source.names) == 1 and source.names[0] in blended else ()
    return Reading(source.names, 0, source.weights, tuple(asked))


def _segments(plan: Plan) -> list[Segment]:
    earlier = _segments(plan.earlier) if plan.earlier else []
    first = plan.schedule.first if isinstance(plan.schedule, AmendedSchedule) else (0,) * len(plan.sources)
    ends = tuple(phase.end for phase in plan.phases)
    return [*earlier, Segment(plan.begin, write_words(plan.named_curriculum), ends, first)]


def replay(
    history: History, sequence_length: int, segments: int | None = None, boundaries: BatchBoundaries | None = None
) -> Plan:
    """Lay out what a history tells.

    Args:
        history: History of the record.
        sequence_length: Tokens of a sample.
        segments: How many of its segments; None for all.
        boundaries: The run's own batches, where they are counted from its start.

    Returns:
        The plan of those segments; the last one goes on for ever.

    Raises:
        NCAError: The history does not fit together, so it was not written by a run.
    """
    plan: Plan | None = None
    for segment in history.segments[:segments]:
        curriculum = read_blend((segment.words, None))
        counted = BatchBoundaries(begin=segment.begin) if boundaries is None else boundaries
        if plan is None:
            plan = plan_training(curriculum, sequence_length, _end_of(segment), counted, segment.ends)
        else:
            amendment = Amendment(curriculum, segment.begin, {}, segment.first)
            plan = amend(plan, amendment, _end_of(segment), counted, segment.ends)
        if len(plan.sources) != len(segment.first):
            raise CurriculumError(
                f"the checkpoint's record of its curriculum is damaged: a data path of {len(plan.sources):,} sources, and what "
                f"{len(segment.first):,} have given"
            )
    assert plan is not None
    return plan


def _end_of(segment: Segment) -> int:
    return max((segment.begin, *segment.ends)) or 1
