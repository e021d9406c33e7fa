"""The words of a data path -> a Curriculum: stages that follow each other, each a mixture of texts and ``nca:`` entries.

    nca:tokens=164M A                                   one stage of NCA, then one of A
    nca:tokens=164M phase:tokens=1T 0.7 A 0.3 B phase: C    three stages

An ``nca:`` entry with ``tokens`` is a stage by itself. A ``phase:`` word begins one made of what follows it, up to the next
stage or the end. Without such a word everything else is the final blend, wherever it stands. No file is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import takewhile
from typing import TypeGuard

from megatron_nca.data.domain import measured
from megatron_nca.data.entry import NCAEntry, is_nca, parse_entry
from megatron_nca.data.phase_word import PhaseWord, is_number, is_ours, is_phase_word, parse_phase_word
from megatron_nca.errors import CurriculumError, EntryError

Blend = tuple[Sequence[str], Sequence[float] | None]
Member = tuple[float | None, NCAEntry | str]


@dataclass(frozen=True)
class Stage:
    """A mixture, and how long it holds.

    Attributes:
        text: The stage's words as the user wrote them.
        nca: The stage's ``nca:`` entries with their weights.
        texts: Prefixes of the stage's texts.
        weights: Their weights, or None where Megatron is to weigh them by their lengths, or there is one.
        tokens: Training tokens, or None to the end of the run.
        ramp: Tokens over which its share falls from 1 to ``floor`` afterwards.
        floor: Share that it keeps.
        batch: Sequences of its global batches, or None for the run's.
    """

    text: str
    nca: tuple[tuple[NCAEntry, Fraction], ...] = ()
    texts: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    tokens: int | None = None
    ramp: int = 0
    floor: Fraction = Fraction(0)
    batch: int | None = None

    @property
    def text_weights(self) -> tuple[Fraction, ...]:
        """The exact weight of each prefix, 1 where it has none."""
        if self.weights is None:
            return (Fraction(1),) * len(self.texts)
        return tuple(exact(weight) for weight in self.weights)

    @property
    def is_pure_nca(self) -> bool:
        """Whether it holds no text."""
        return not self.texts

    def without_end(self) -> Stage:
        """Return its mixture without an end, for the held-out splits."""
        return replace(self, tokens=None, ramp=0, floor=Fraction(0), batch=None)


@dataclass(frozen=True)
class Curriculum:
    """A data path taken apart.

    Attributes:
        stages: Stages in order; only the last may be without ``tokens``.
    """

    stages: tuple[Stage, ...] = ()

    @property
    def timed(self) -> tuple[Stage, ...]:
        """The stages that have an end."""
        return tuple(stage for stage in self.stages if stage.tokens is not None)

    @property
    def has_switch(self) -> bool:
        """Whether NCA alone comes first, and then something else."""
        leading = list(takewhile(lambda stage: stage.is_pure_nca, self.timed))
        return 0 < len(leading) < len(self.stages)

    @property
    def last(self) -> Stage:
        """The final blend; an empty one where the last stage has an end."""
        if self.stages and self.stages[-1].tokens is None:
            return self.stages[-1]
        return Stage("")

    @property
    def entries(self) -> tuple[NCAEntry, ...]:
        """Every ``nca:`` entry; its place here is its source number, and the texts come after them."""
        return tuple(entry for stage in self.stages for entry, _ in stage.nca)

    @property
    def phases(self) -> tuple[NCAEntry, ...]:
        """The entries that are stages by themselves, with an end."""
        return tuple(stage.nca[0][0] for stage in self.timed if len(stage.nca) == 1 and not stage.texts)

    @property
    def blended(self) -> tuple[tuple[NCAEntry, Fraction], ...]:
        """The entries of the final blend, with their weights."""
        return self.last.nca

    @property
    def text(self) -> tuple[str, ...]:
        """The prefixes of the final blend."""
        return self.last.texts

    @property
    def text_weights(self) -> tuple[float, ...] | None:
        """Their weights, or None where Megatron is to weigh them by their lengths."""
        return self.last.weights

    @property
    def text_is_one(self) -> bool:
        """Whether the text is one source that Megatron blends: it is, where the last stage alone holds any."""
        return not any(stage.texts for stage in self.stages[:-1])

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Every prefix once, in the order of first appearance."""
        return tuple(dict.fromkeys(prefix for stage in self.stages for prefix in stage.texts))

    @property
    def text_blend(self) -> Blend | None:
        """The last stage's text as Megatron takes it, or None without text."""
        last = self.stages[-1] if self.stages else Stage("")
        if not last.texts:
            return None
        weights = None if last.weights is None or len(last.texts) == 1 else list(last.weights)
        return list(last.texts), weights

    @property
    def streams(self) -> tuple[int, ...]:
        """For each entry, how many entries of the same process stand before it, so that none repeats another's samples."""
        identities = [process_of(entry) for entry in self.entries]
        return tuple(identities[:place].count(identity) for place, identity in enumerate(identities))

    def measured(self) -> Curriculum:
        """Return it with the bands filled in that entries leave to a text; reads those texts.

        Raises:
            EntryError: A text cannot be measured.
        """
        return Curriculum(
            tuple(replace(stage, nca=tuple((measured(entry), weight) for entry, weight in stage.nca)) for stage in self.stages)
        )

    def final(self) -> Curriculum:
        """Return what validation and test hold: the last stage's mixture."""
        return Curriculum(tuple(stage.without_end() for stage in self.stages[-1:]))


def process_of(entry: NCAEntry) -> tuple[object, ...]:
    """Return what determines an entry's trajectories."""
    return entry.config, entry.rules, entry.seed


def exact(weight: float) -> Fraction:
    """Return a weight as the decimal number that the user wrote."""
    return Fraction(repr(float(weight)))


def mentions_nca(blend: Blend | None) -> TypeGuard[Blend]:
    """Tell whether a blend has an ``nca:`` entry or a ``phase:`` word."""
    return blend is not None and any(is_ours(prefix) for prefix in blend[0])


LEAST_WEIGHT = 1e-12
"""A source of less would not be read once in any run, and the reciprocal of a denormal number is no number."""


def read_blend(blend: Blend, mixed: bool = True) -> Curriculum:
    """Take Megatron's blend apart; reads no file.

    Args:
        blend: (prefixes, weights or None), as ``get_blend_from_list`` makes it. Without weights the prefixes are the words
            of the data path as they stand, weights among them.
        mixed: Whether its datasets are read as one mixture; several validation sets are not, and need no weights.

    Returns:
        The curriculum.

    Raises:
        EntryError: A word is not usable.
        CurriculumError: The words do not go together.
    """
    groups: list[_Group] = []
    final = _Group(None)
    phased = any(is_phase_word(word) for word in blend[0])
    if phased and not mixed:
        raise CurriculumError("data path: several validation sets are read one by one, so phase: has no place among them")
    for weight, word in _weighted(blend):
        if is_phase_word(word):
            groups.append(_Group(parse_phase_word(word)))
            continue
        member = parse_entry(word) if is_nca(word) else word
        if isinstance(member, NCAEntry) and member.is_phase:
            groups.append(_Group(None, [(weight, member)]))
        elif not phased:
            final.members.append((weight, member))
        elif groups and groups[-1].word is not None:
            groups[-1].members.append((weight, member))
        else:
            raise CurriculumError(
                f"data path: {word!r} stands in no phase; with phase: in a data path everything but an nca: entry with tokens= "
                f"follows a phase:, so write phase:tokens=N before it, or phase: if it is the last"
            )
    if final.members:
        groups.append(final)
    curriculum = Curriculum(tuple(group.stage(mixed) for group in groups))
    _check_stages(curriculum)
    return curriculum


class _Group:
    """Words that become a stage."""

    def __init__(self, word: PhaseWord | None, members: list[Member] | None = None) -> None:
        self.word = word
        self.members = members or []

    def stage(self, mixed: bool) -> Stage:
        if self.word is None and len(self.members) == 1 and isinstance(self.members[0][1], NCAEntry):
            entry = self.members[0][1]
            if entry.is_phase:
                _check_weights(self.members, several=False)
                return Stage(entry.text, ((entry, Fraction(1)),), (), None, entry.tokens, entry.ramp, entry.floor, entry.batch)
        if self.word is not None and not self.members:
            raise EntryError(self.word.text, "holds no data; write texts or nca: entries after it, or leave it out")
        nca, texts, weights = _mixture(self.members, mixed)
        word = self.word or PhaseWord("")
        text = " ".join(filter(None, [word.text, *map(_written, self.members)]))
        return Stage(text, nca, texts, weights, word.tokens, word.ramp, word.floor, word.batch)


def _written(member: Member) -> str:
    weight, item = member
    word = item.text if isinstance(item, NCAEntry) else item
    return word if weight is None else f"{weight:g} {word}"


def _mixture(
    members: list[Member], mixed: bool
) -> tuple[tuple[tuple[NCAEntry, Fraction], ...], tuple[str, ...], tuple[float, ...] | None]:
    several = mixed and len(members) > 1
    _check_weights(members, several)
    nca = tuple((item, Fraction(1) if weight is None else exact(weight)) for weight, item in members if _is_entry(item))
    texts = [(item, weight) for weight, item in members if isinstance(item, str)]
    given = [weight for _, weight in texts if weight is not None]
    return nca, tuple(item for item, _ in texts), tuple(given) if given else None


def _is_entry(item: NCAEntry | str) -> TypeGuard[NCAEntry]:
    return isinstance(item, NCAEntry)


def _check_weights(members: list[Member], several: bool) -> None:
    weighted = any(weight is not None for weight, _ in members)
    for weight, item in members:
        if weight is not None and not LEAST_WEIGHT <= weight <= 1 / LEAST_WEIGHT:
            word = item.text if _is_entry(item) else str(item)
            raise EntryError(word, f"has weight {weight:g}; a weight must be positive and finite, {LEAST_WEIGHT:g} at least")
        if weight is None and several and _is_entry(item):
            raise EntryError(
                item.text,
                "has no tokens=, so it shares a blend with other data, which needs weights; write 'WEIGHT PREFIX' for every "
                "dataset, as in 0.1 nca: 0.9 A, or give tokens=N to make it a phase before the others",
            )
        if weight is None and weighted:
            raise CurriculumError(
                f"data path: {item!r} has no weight, others of its blend have one; write 'WEIGHT PREFIX' for each of them"
            )


def _weighted(blend: Blend) -> Iterator[tuple[float | None, str]]:
    """Yield (weight, word); where words stand unparsed, a number is the weight of the word that follows it."""
    words, weights = blend
    if weights is not None:
        yield from zip(weights, words, strict=True)
        return
    waiting: str | None = None
    for word in words:
        if not is_number(word):
            yield None if waiting is None else float(waiting), word
            waiting = None
        elif waiting is not None:
            raise CurriculumError(f"data path: {waiting!r} and {word!r} follow each other; write one weight before a dataset")
        else:
            waiting = word
    if waiting is not None:
        raise CurriculumError(f"data path: {waiting!r} stands where a dataset is expected; write a dataset after its weight")


def _check_stages(curriculum: Curriculum) -> None:
    for stage in curriculum.stages[:-1]:
        if stage.tokens is None:
            raise EntryError(stage.text, "is followed by another phase, so it needs an end; give tokens=N")
        if stage.floor == 1:
            raise EntryError(stage.text, "floor=1 leaves nothing to what follows; give a floor below 1, or leave out tokens=")
    last = curriculum.stages[-1]
    if last.ramp or last.floor:
        raise EntryError(last.text, "ramp and floor need something that follows the phase; add a dataset or leave them out")
    if curriculum.text_is_one:
        return
    for stage in curriculum.stages:
        if stage.weights is None and len(stage.texts) > 1:
            raise EntryError(
                stage.text,
                f"mixes {len(stage.texts)} texts that other phases may go on with, which needs weights; write 'WEIGHT PREFIX' "
                "for each of them",
            )
