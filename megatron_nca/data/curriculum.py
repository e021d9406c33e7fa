"""The curriculum laid out over a run.

``plan_training`` lays the stages of a data path out over the run's samples, their ends rounded up to global batches. Its
``Plan`` says where each lies, which sources there are, and holds the schedule that finds the sample at a position.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import takewhile
from operator import itemgetter
from typing import NamedTuple

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.data_path import Blend, Curriculum, Stage, mentions_nca, read_blend
from megatron_nca.data.entry import MIN_FRAMES, NCAEntry
from megatron_nca.data.mixture import mixture_of
from megatron_nca.data.schedule import AnySchedule, Link, PhaseSplit, Schedule, position_after
from megatron_nca.errors import EntryError

__all__ = ["Blend", "Curriculum", "Phase", "Plan", "Source", "mentions_nca", "plan_training", "read_blend"]

TEXT = "text"
MANY, FEW = 12, 3
"""Sources of a phase that are told one by one, and how many of more."""


@dataclass(frozen=True)
class Phase:
    """Where a stage with an end lies in the run.

    Attributes:
        stage: The stage.
        begin: Consumed samples at which its share becomes 1 of what earlier ones leave.
        end: Consumed samples at which its share begins to fall; a global-batch boundary.
        ramp: Samples over which it falls.
    """

    stage: Stage
    begin: int
    end: int
    ramp: int


@dataclass(frozen=True)
class Source:
    """Something that is read in order, once.

    Attributes:
        entry: The ``nca:`` entry, or None for text.
        stream: Number that separates the entry from others of the same process.
        prefixes: Prefixes of the text; several where Megatron blends them into one source.
        weights: Weights of the prefixes, as Megatron takes them.
        called: What the run calls them, where they lay elsewhere when it began.
    """

    entry: NCAEntry | None = None
    stream: int = 0
    prefixes: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    called: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What the run calls its texts."""
        return self.called or self.prefixes

    @property
    def is_nca(self) -> bool:
        """Whether it is an ``nca:`` entry."""
        return self.entry is not None

    @property
    def name(self) -> str:
        """What the user calls it: the entry as written, the prefix, or the blend's prefixes."""
        return self.entry.text if self.entry else " + ".join(self.prefixes)


@dataclass(frozen=True)
class Plan:
    """A curriculum laid out over a run.

    Attributes:
        curriculum: What it was made from.
        sequence_length: Tokens of a sample.
        samples: Training samples of the run.
        phases: Where the stages with an end lie.
        schedule: Position -> (source, index).
        sources: What the schedule's numbers stand for: the ``nca:`` entries in order, then the texts.
        batches: Where global batches begin, phases' own included.
        earlier: The plan that held before the data path was changed in mid-run, or None.
        begin: Consumed samples from which this one holds.
    """

    curriculum: Curriculum
    sequence_length: int
    samples: int
    phases: tuple[Phase, ...]
    schedule: AnySchedule = field(compare=False)
    sources: tuple[Source, ...] = ()
    batches: BatchBoundaries = field(default_factory=BatchBoundaries, compare=False)
    earlier: Plan | None = None
    begin: int = 0

    @property
    def text_source(self) -> int | None:
        """Number of the first text's source, or None without text."""
        return next((number for number, source in enumerate(self.sources) if not source.is_nca), None)

    @property
    def switch(self) -> int | None:
        """Consumed samples at which the leading NCA phases end and something else begins; None where they never do."""
        leading = list(takewhile(lambda phase: phase.stage.is_pure_nca, self.phases))
        end = leading[-1].end if self.curriculum.has_switch else None
        if self.earlier is None:
            return end
        before = self.earlier.switch
        if before is not None and before < self.begin:
            return before
        if self.earlier.nca_and_text(self.earlier.schedule.counts(self.begin))[1]:
            return None
        # So far all was NCA: the switch is still to come, or is now where the new data path does not begin with it.
        return end if self.curriculum.stages[0].is_pure_nca else self.begin

    @property
    def text_is_one(self) -> bool:
        """Whether the text is one source that Megatron blends."""
        return self.earlier is None and self.curriculum.text_is_one

    @property
    def named_curriculum(self) -> Curriculum:
        """The curriculum with each text as the run calls it."""
        names = {prefix: name for source in self.sources for prefix, name in zip(source.prefixes, source.names, strict=True)}
        stages = (replace(stage, texts=tuple(names[prefix] for prefix in stage.texts)) for stage in self.curriculum.stages)
        return Curriculum(tuple(stages))

    def nca_and_text(self, counts: Sequence[int]) -> tuple[int, int]:
        """Return how many of some samples are NCA and how many text, out of each source's number of them."""
        nca = sum(count for count, source in zip(counts, self.sources, strict=True) if source.is_nca)
        return nca, sum(counts) - nca

    def source_name(self, source: int) -> str:
        """Return a source's entry as the user wrote it, its prefix, or ``text`` where Megatron blends several."""
        found = self.sources[source]
        return TEXT if not found.is_nca and self.text_is_one else found.name

    def describe(self) -> str:
        """Return the plan in one line: every phase in tokens and samples, then what follows."""
        parts = [
            f"{_written(phase.stage)} for {(phase.end - phase.begin) * self.sequence_length:,} tokens "
            f"(samples {phase.begin:,} to {phase.end:,}"
            + (f", batches of {phase.stage.batch:,}" if phase.stage.batch else "")
            + (f", falling to {float(phase.stage.floor):g} over {phase.ramp:,} samples)" if phase.ramp else ")")
            for phase in self.phases
        ]
        last = self.curriculum.last
        if last.nca or last.texts:
            begin = self.phases[-1].end if self.phases else self.begin
            sizes = f", batches of {last.batch:,}" if last.batch else ""
            parts.append(f"{_mixed(last)} (samples {begin:,} to {max(begin, self.samples):,}{sizes})")
        amended = f"from sample {self.begin:,} on: " if self.earlier else ""
        return amended + " -> ".join(parts)


def _mixed(stage: Stage) -> str:
    nca = [f"{float(weight):g} {entry.text}" for entry, weight in stage.nca]
    parts = [*nca, *stage.texts]
    return " + ".join(parts if len(parts) <= MANY else [*parts[:FEW], f"{len(parts) - FEW:,} more"])


def _written(stage: Stage) -> str:
    """Return a stage as the user wrote it, one of very many sources cut short."""
    sources = len(stage.nca) + len(stage.texts)
    if sources <= MANY:
        return stage.text
    return f"{' '.join(stage.text.split()[: 1 + 2 * FEW])} ... ({sources:,} sources)"


def plan_training(
    curriculum: Curriculum,
    sequence_length: int,
    samples: int,
    boundaries: BatchBoundaries,
    ended_phases: Sequence[int] = (),
    iterations: int | None = None,
) -> Plan:
    """Lay a curriculum out over a run.

    Args:
        curriculum: The curriculum, whose stages are laid out.
        sequence_length: Tokens of a sample; Megatron counts tokens as samples times this.
        samples: Training samples of the run.
        boundaries: Where global batches begin; a stage's own batch is added here.
        ended_phases: Ends of the first phases where they have been reached, in an earlier start of the run.
        iterations: Length of the run where it is given in iterations; then ``samples`` counts only where no stage has a
            batch of its own.

    Returns:
        The plan.

    Raises:
        EntryError: A phase that nothing follows is shorter than the run, or a sequence does not hold two frames.
    """
    sources, numbering = number_sources(curriculum)
    laid = lay_out(
        curriculum, sequence_length, samples, boundaries, ended_phases, iterations, numbering, len(sources)
    )  # fmt: skip
    return Plan(curriculum, sequence_length, laid.samples, laid.phases, laid.schedule, sources, laid.batches)


class Numbering(NamedTuple):
    """Which source is meant by what stands in a data path.

    Attributes:
        entries: The source of each entry, in their order.
        texts: The source of each prefix; of a blend of Megatron's, of its first.
        text_is_one: Whether the text is such a blend.
    """

    entries: tuple[int, ...]
    texts: Mapping[str, int]
    text_is_one: bool


class PlanLayout(NamedTuple):
    """A curriculum over positions counted from where it begins."""

    samples: int
    phases: tuple[Phase, ...]
    schedule: Schedule
    batches: BatchBoundaries


def lay_out(
    curriculum: Curriculum,
    sequence_length: int,
    samples: int,
    boundaries: BatchBoundaries,
    ended_phases: Sequence[int],
    iterations: int | None,
    numbering: Numbering,
    sources: int,
) -> PlanLayout:
    """Lay stages out one after the other; see ``plan_training``."""
    for entry in curriculum.entries:
        _check_sequence(entry, sequence_length)
    layout = _Layout(sequence_length, boundaries)
    for place, stage in enumerate(curriculum.timed):
        layout.add(stage, ended_phases[place] if place < len(ended_phases) else None)
    if curriculum.last.batch is not None:
        begin = layout.phases[-1].end if layout.phases else boundaries.begin
        layout.boundaries = layout.boundaries.with_phase_batch(begin, None, curriculum.last.batch)
    if iterations is not None and any(stage.batch for stage in curriculum.stages):
        samples = layout.boundaries.position_after(iterations)
    _check_length(curriculum, layout.phases, samples, sequence_length)
    schedule = _schedule(curriculum, layout.splits, numbering, sources)
    return PlanLayout(samples, tuple(layout.phases), schedule, layout.boundaries)


class _Layout:
    """Phases laid out one after the other."""

    def __init__(self, sequence_length: int, boundaries: BatchBoundaries) -> None:
        self.sequence_length = sequence_length
        self.boundaries = boundaries
        self.phases: list[Phase] = []
        self.splits: list[PhaseSplit] = []
        self._over: list[tuple[int, int]] = [(0, 0)]
        """From which position on the first 0, 1, 2, ... phases are over, and how many positions they have had; see Schedule."""

    def _left(self, samples: int) -> int:
        over = bisect_right(self._over, samples, key=itemgetter(0)) - 1
        samples -= self._over[over][1]
        for split in self.splits[over:]:
            samples -= split.count(samples)
        return samples

    def add(self, stage: Stage, end: int | None) -> None:
        begin = self.phases[-1].end if self.phases else 0
        batches = self.boundaries
        if stage.batch is not None:
            batches = batches.with_phase_batch(max(begin, batches.begin), None, stage.batch)
        if end is None:
            wanted = _samples_of(stage.tokens or 0, self.sequence_length)
            end = batches.round_up(position_after(self._left, wanted, begin))
        if stage.batch is not None and end > self.boundaries.begin:
            self.boundaries = self.boundaries.with_phase_batch(max(begin, batches.begin), end, stage.batch)
        # An even ramp to a floor of 0 leaves no fraction of a sample behind for what follows.
        ramp = _samples_of(stage.ramp, self.sequence_length)
        ramp += ramp % 2
        split = PhaseSplit(self._left(end), ramp, stage.floor)
        reached, had = self._over[-1]
        if split.total is not None and len(self._over) == len(self.splits) + 1:
            self._over.append((max(reached, split.hold + split.ramp + had), had + split.total))
        self.splits.append(split)
        self.phases.append(Phase(stage, begin, end, ramp))


def _check_sequence(entry: NCAEntry, sequence_length: int) -> None:
    least = MIN_FRAMES * entry.config.frame_length
    if sequence_length < least:
        raise EntryError(
            entry.text,
            f"a sequence of {sequence_length} tokens is shorter than {MIN_FRAMES} frames of {entry.config.frame_length} "
            f"tokens; use sequences of at least {least} tokens, a smaller grid or a larger patch",
        )


def _check_length(curriculum: Curriculum, phases: list[Phase], samples: int, sequence_length: int) -> None:
    if len(phases) < len(curriculum.stages) or not phases or phases[-1].end >= samples:
        return
    raise EntryError(
        phases[-1].stage.text,
        f"nothing follows this phase, which ends after {phases[-1].end * sequence_length:,} tokens, but the run trains on "
        f"{samples * sequence_length:,}; add a dataset after it, give more tokens=, or shorten the run",
    )


def _samples_of(tokens: int, sequence_length: int) -> int:
    return -(-tokens // sequence_length)


def number_sources(curriculum: Curriculum) -> tuple[tuple[Source, ...], Numbering]:
    """Number the sources of a run that begins: its entries in order, then its texts."""
    nca = tuple(Source(entry, stream) for entry, stream in zip(curriculum.entries, curriculum.streams, strict=True))
    numbers, blend = tuple(range(len(nca))), curriculum.text_blend
    if not curriculum.text_is_one:
        texts = {prefix: len(nca) + place for place, prefix in enumerate(curriculum.prefixes)}
        return (*nca, *(Source(prefixes=(prefix,)) for prefix in texts)), Numbering(numbers, texts, False)
    if blend is None:
        return nca, Numbering(numbers, {}, True)
    prefixes, weights = blend
    text = Source(prefixes=tuple(prefixes), weights=None if weights is None else tuple(weights))
    return (*nca, text), Numbering(numbers, {prefixes[0]: len(nca)}, True)


def _schedule(curriculum: Curriculum, splits: Sequence[PhaseSplit], numbering: Numbering, sources: int) -> Schedule:
    links: list[Link] = []
    entries = iter(numbering.entries)
    for place, stage in enumerate(curriculum.stages):
        shares = [(next(entries), weight) for _, weight in stage.nca]
        shares += _text_shares(stage, numbering)
        # What nothing follows has every position that is left.
        split = splits[place] if place + 1 < len(curriculum.stages) else None
        links.append(Link(mixture_of(shares), split))
    return Schedule(tuple(links), sources)


def _text_shares(stage: Stage, numbering: Numbering) -> list[tuple[int, Fraction]]:
    if not stage.texts:
        return []
    if numbering.text_is_one:
        weight = sum(stage.text_weights, Fraction(0)) if stage.nca and stage.weights else Fraction(1)
        return [(numbering.texts[stage.texts[0]], weight)]
    shares: dict[int, Fraction] = {}
    for prefix, weight in zip(stage.texts, stage.text_weights, strict=True):
        number = numbering.texts[prefix]
        shares[number] = shares.get(number, Fraction(0)) + weight
    return list(shares.items())
