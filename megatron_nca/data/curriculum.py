"""The curriculum: what a blend with ``nca:`` entries means for a run.

``read_blend`` takes Megatron's (prefixes, weights) apart into phases and the final blend; ``plan_training`` lays them out over
the run's samples, phase ends rounded up to global batches, and returns a ``Plan`` that holds the schedule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeGuard

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.domain import measured
from megatron_nca.data.entry import MIN_FRAMES, NCAEntry, is_nca, parse_entry
from megatron_nca.data.schedule import Leaf, Node, PhaseSplit, Schedule, Tree, blend_tree
from megatron_nca.errors import CurriculumError, EntryError

Blend = tuple[Sequence[str], Sequence[float] | None]

TEXT = "text"


@dataclass(frozen=True)
class Curriculum:
    """A blend taken apart.

    Attributes:
        phases: The entries with ``tokens``, in their order.
        blended: The other ``nca:`` entries with their weights in the final blend.
        text: The other prefixes.
        text_weights: Their weights, or None where Megatron is to weigh them by their lengths.
    """

    phases: tuple[NCAEntry, ...] = ()
    blended: tuple[tuple[NCAEntry, Fraction], ...] = ()
    text: tuple[str, ...] = ()
    text_weights: tuple[float, ...] | None = None

    @property
    def entries(self) -> tuple[NCAEntry, ...]:
        """Every ``nca:`` entry; its place here is its source number, and the text's is one more."""
        return self.phases + tuple(entry for entry, _ in self.blended)

    @property
    def text_blend(self) -> Blend | None:
        """The text as Megatron takes it, or None without text."""
        if not self.text:
            return None
        weights = None if self.text_weights is None or len(self.text) == 1 else list(self.text_weights)
        return list(self.text), weights

    @property
    def streams(self) -> tuple[int, ...]:
        """For each entry, how many entries of the same process stand before it, so that none repeats another's samples."""
        identities = [(entry.config, entry.rules, entry.seed) for entry in self.entries]
        return tuple(identities[:place].count(identity) for place, identity in enumerate(identities))

    def measured(self) -> Curriculum:
        """Return it with the bands filled in that entries leave to a text; reads those texts.

        Raises:
            EntryError: A text cannot be measured.
        """
        blended = tuple((measured(entry), weight) for entry, weight in self.blended)
        return replace(self, phases=tuple(map(measured, self.phases)), blended=blended)

    def final(self) -> Curriculum:
        """Return what validation and test hold: the final blend, or the last phase's process where nothing follows."""
        if self.text or self.blended:
            return Curriculum((), self.blended, self.text, self.text_weights)
        return Curriculum((), ((self.phases[-1], Fraction(1)),))


def mentions_nca(blend: Blend | None) -> TypeGuard[Blend]:
    """Tell whether a blend has an ``nca:`` entry."""
    return blend is not None and any(is_nca(prefix) for prefix in blend[0])


def read_blend(blend: Blend, mixed: bool = True) -> Curriculum:
    """Take Megatron's blend apart; reads no file.

    Args:
        blend: (prefixes, weights or None), as ``get_blend_from_list`` makes it.
        mixed: Whether its datasets are read as one mixture; several validation sets are not, and need no weights.

    Returns:
        The curriculum.

    Raises:
        EntryError: An entry is not usable.
        CurriculumError: The entries do not go together.
    """
    prefixes, weights = blend
    if weights is None:
        _refuse_stray_weights(prefixes)
    parsed = [(parse_entry(prefix) if is_nca(prefix) else prefix) for prefix in prefixes]
    weighted = list(zip(parsed, weights if weights is not None else [None] * len(parsed), strict=True))
    phases = tuple(item for item in parsed if isinstance(item, NCAEntry) and item.is_phase)
    text = [(item, weight) for item, weight in weighted if isinstance(item, str)]
    blended = [(item, weight) for item, weight in weighted if isinstance(item, NCAEntry) and not item.is_phase]
    curriculum = Curriculum(
        phases=phases,
        blended=tuple(
            (entry, _blend_weight(entry, weight, mixed and len(blended) + len(text) > 1)) for entry, weight in blended
        ),
        text=tuple(item for item, _ in text),
        text_weights=None if weights is None else tuple(weight for _, weight in text if weight is not None),
    )
    _check_phases(curriculum)
    return curriculum


def _refuse_stray_weights(prefixes: Sequence[str]) -> None:
    for prefix in prefixes:
        if _is_number(prefix):
            raise CurriculumError(
                f"data path: {prefix!r} stands where a dataset is expected. Weights are read only if every dataset has one: "
                f"write 'WEIGHT PREFIX' for each, a phase's too (its weight is not used), as in 1 nca:tokens=164M 0.7 A 0.3 B"
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _blend_weight(entry: NCAEntry, weight: float | None, needed: bool) -> Fraction:
    if weight is None and needed:
        raise EntryError(
            entry.text,
            "has no tokens=, so it shares a blend with other data, which needs weights; write 'WEIGHT PREFIX' for every "
            "entry, as in 0.1 nca: 0.9 A, or give tokens=N to make it a phase before the others",
        )
    exact = Fraction(repr(float(weight))) if weight is not None else Fraction(1)
    if exact <= 0:
        raise EntryError(entry.text, f"has weight {weight}; a weight must be positive")
    return exact


def _check_phases(curriculum: Curriculum) -> None:
    for place, entry in enumerate(curriculum.phases):
        followed = place + 1 < len(curriculum.phases) or curriculum.text or curriculum.blended
        if entry.floor == 1 and followed:
            raise EntryError(entry.text, "floor=1 leaves nothing to what follows; give a floor below 1, or leave out tokens=")
        if (entry.ramp or entry.floor) and not followed:
            raise EntryError(
                entry.text, "ramp and floor need something that follows the phase; add a dataset or leave them out"
            )


@dataclass(frozen=True)
class Phase:
    """Where a phase lies in the run.

    Attributes:
        entry: Its entry.
        begin: Consumed samples at which its share becomes 1 of what earlier phases leave.
        end: Consumed samples at which its share begins to fall; a global-batch boundary.
        ramp: Samples over which it falls.
    """

    entry: NCAEntry
    begin: int
    end: int
    ramp: int


@dataclass(frozen=True)
class Plan:
    """A curriculum laid out over a run.

    Attributes:
        curriculum: What it was made from.
        sequence_length: Tokens of a sample.
        samples: Training samples of the run.
        phases: Its phases.
        schedule: Position -> (source, index); sources are ``curriculum.entries`` in order, then the text.
    """

    curriculum: Curriculum
    sequence_length: int
    samples: int
    phases: tuple[Phase, ...]
    schedule: Schedule

    @property
    def text_source(self) -> int | None:
        """Number of the text's source, or None without text."""
        return len(self.curriculum.entries) if self.curriculum.text else None

    @property
    def switch(self) -> int | None:
        """Consumed samples at which the last phase ends and the final blend begins; None where there is no such moment."""
        followed = self.curriculum.text or self.curriculum.blended
        return self.phases[-1].end if self.phases and followed else None

    def source_name(self, source: int) -> str:
        """Return a source's entry as the user wrote it, or ``text``."""
        entries = self.curriculum.entries
        return entries[source].text if source < len(entries) else TEXT

    def describe(self) -> str:
        """Return the plan in one line: every phase in tokens and samples, then what follows."""
        parts = [
            f"{phase.entry.text} for {(phase.end - phase.begin) * self.sequence_length:,} tokens "
            f"(samples {phase.begin:,} to {phase.end:,}"
            + (f", falling to {float(phase.entry.floor):g} over {phase.ramp:,} samples)" if phase.ramp else ")")
            for phase in self.phases
        ]
        rest = [f"{float(weight):g} {entry.text}" for entry, weight in self.curriculum.blended]
        if rest or self.curriculum.text:
            begin = self.phases[-1].end if self.phases else 0
            parts.append(f"{' + '.join([*rest, *self.curriculum.text])} (samples {begin:,} to {max(begin, self.samples):,})")
        return " -> ".join(parts)


def plan_training(
    curriculum: Curriculum,
    sequence_length: int,
    samples: int,
    boundaries: BatchBoundaries,
    ended_phases: Sequence[int] = (),
) -> Plan:
    """Lay a curriculum out over a run.

    Args:
        curriculum: Phases and final blend.
        sequence_length: Tokens of a sample; Megatron counts tokens as samples times this.
        samples: Training samples of the run.
        boundaries: Where global batches begin.
        ended_phases: Ends of the first phases where they have been reached, in an earlier start of the run.

    Returns:
        The plan.

    Raises:
        EntryError: A phase that nothing follows is shorter than the run, or a sequence does not hold two frames.
    """
    for entry in curriculum.entries:
        _check_sequence(entry, sequence_length)
    splits: list[PhaseSplit] = []
    phases: list[Phase] = []
    for place, entry in enumerate(curriculum.phases):
        begin = phases[-1].end if phases else 0
        if place < len(ended_phases):
            end = ended_phases[place]
        else:
            end = boundaries.round_up(_position_after(splits, _samples_of(entry.tokens or 0, sequence_length)))
        # An even ramp to a floor of 0 leaves no fraction of a sample behind for what follows.
        ramp = _samples_of(entry.ramp, sequence_length)
        ramp += ramp % 2
        splits.append(PhaseSplit(_positions_left(splits, end), ramp, entry.floor))
        phases.append(Phase(entry, begin, end, ramp))
    _check_length(curriculum, phases, samples, sequence_length)
    schedule = Schedule(_chain(splits, curriculum), len(curriculum.entries) + bool(curriculum.text))
    return Plan(curriculum, sequence_length, samples, tuple(phases), schedule)


def _check_sequence(entry: NCAEntry, sequence_length: int) -> None:
    least = MIN_FRAMES * entry.config.frame_length
    if sequence_length < least:
        raise EntryError(
            entry.text,
            f"a sequence of {sequence_length} tokens is shorter than {MIN_FRAMES} frames of {entry.config.frame_length} "
            f"tokens; use sequences of at least {least} tokens, a smaller grid or a larger patch",
        )


def _check_length(curriculum: Curriculum, phases: list[Phase], samples: int, sequence_length: int) -> None:
    if curriculum.text or curriculum.blended or not phases or phases[-1].end >= samples:
        return
    raise EntryError(
        phases[-1].entry.text,
        f"nothing follows this phase, which ends after {phases[-1].end * sequence_length:,} tokens, but the run trains on "
        f"{samples * sequence_length:,}; add a dataset after it, give more tokens=, or shorten the run",
    )


def _samples_of(tokens: int, sequence_length: int) -> int:
    return -(-tokens // sequence_length)


def _positions_left(splits: Sequence[PhaseSplit], samples: int) -> int:
    """Positions that the phases so far leave among the first ``samples``."""
    for split in splits:
        samples -= split.count(samples)
    return samples


def _position_after(splits: Sequence[PhaseSplit], wanted: int) -> int:
    """First number of samples among which the phases so far leave ``wanted`` positions."""
    reach = max(wanted, 1)
    while _positions_left(splits, reach) < wanted:
        reach *= 2
    return bisect_left(range(reach + 1), wanted, key=lambda samples: _positions_left(splits, samples))


def _chain(splits: Sequence[PhaseSplit], curriculum: Curriculum) -> Tree:
    shares = [(len(splits) + place, weight) for place, (_, weight) in enumerate(curriculum.blended)]
    if curriculum.text:
        shares.append((len(curriculum.entries), _text_weight(curriculum)))
    # Where nothing follows, the last phase covers the run and its second branch is never reached.
    tree = blend_tree(shares) if shares else Leaf(len(splits) - 1)
    for source in reversed(range(len(splits))):
        tree = Node(splits[source], Leaf(source), tree)
    return tree


def _text_weight(curriculum: Curriculum) -> Fraction:
    if curriculum.text_weights is None or not curriculum.blended:
        return Fraction(1)
    return sum((Fraction(repr(float(weight))) for weight in curriculum.text_weights), Fraction(0))
