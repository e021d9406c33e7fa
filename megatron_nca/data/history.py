"""What a run has planned and read so far, so that what comes later leaves it alone.

A run is a chain of segments: from the consumed samples at which it begins, each has a curriculum of its own, and every source
goes on at its next unread sample. A text is a chain of datasets: Megatron orders it by how many samples are asked of it,
so a longer run does not ask for more of the first, but reads it to its end and goes on in another behind it.

A history is plain values, for a checkpoint's record: sources by name, never by where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from megatron_nca.errors import CurriculumError


@dataclass(frozen=True)
class Reading:
    """A source, as a run reads it.

    Attributes:
        words: An ``nca:`` entry in its one form, or the prefixes of a text; several where Megatron blends them.
        stream: Number of an entry among those of the same process.
        weights: Weights of a blend, as Megatron takes them.
        asked: Samples asked of a text in all, every time that it was more; empty for an entry, which has no end.
    """

    words: tuple[str, ...]
    stream: int = 0
    weights: tuple[float, ...] | None = None
    asked: tuple[int, ...] = ()

    def asking(self, wanted: int) -> Reading:
        """Return it with a number of samples asked in all, where that is more than before."""
        if self.asked and wanted <= self.asked[-1]:
            return self
        return replace(self, asked=(*self.asked, wanted))


@dataclass(frozen=True)
class Segment:
    """A part of a run with a curriculum of its own.

    Attributes:
        begin: Consumed samples at which it begins.
        words: Data path of the segment, in one form.
        ends: Consumed samples at which its phases end.
        first: Sample at which each source known by then goes on.
    """

    begin: int
    words: tuple[str, ...]
    ends: tuple[int, ...]
    first: tuple[int, ...]


@dataclass(frozen=True)
class History:
    """A run so far.

    Attributes:
        segments: Segments in order; the last is the one that holds.
        readings: The run's sources, in the order in which they came.
    """

    segments: tuple[Segment, ...]
    readings: tuple[Reading, ...]

    def state(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "segments": [_listed(asdict(segment)) for segment in self.segments],
            "readings": [_listed(asdict(reading)) for reading in self.readings],
        }

    @classmethod
    def read(cls, state: Any) -> History:
        """Read what ``state`` returned.

        Raises:
            CurriculumError: A value is missing or of another kind.
        """
        try:
            segments = tuple(Segment(**_tupled(one, Segment)) for one in state["segments"])
            readings = tuple(Reading(**_tupled(one, Reading)) for one in state["readings"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CurriculumError(f"the checkpoint's record of its curriculum is damaged: its history has no {error}") from None
        known = [len(segment.first) for segment in segments]
        begins = [segment.begin for segment in segments]
        words = [*(segment.words for segment in segments), *(reading.words for reading in readings)]
        in_order = known == sorted(known) and begins == sorted(begins)
        if not (segments and readings and in_order and all(words) and known[-1] == len(readings)):
            raise CurriculumError("the checkpoint's record of its curriculum is damaged: its history is not complete")
        return cls(segments, readings)


LONGEST = 8192
"""Characters of a word in a record: more than a path can have."""
LARGEST = 1 << 62
"""Bound of a number in a record: more samples than any run has."""


def is_count(value: Any) -> bool:
    """Tell whether a value of a record is a count."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def shown(value: Any) -> str:
    """Return a value of a stranger's record in at most one short line."""
    if isinstance(value, (list, tuple, dict)):
        return f"a {type(value).__name__} of {len(value):,}"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_NUMBERS = ("begin", "stream")
_LISTS: Mapping[str, type] = {"words": str, "ends": int, "first": int, "asked": int, "weights": float}


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _tupled(values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for name in kind.__dataclass_fields__:
        value = values[name]
        if name in _NUMBERS:
            if not is_count(value):
                raise ValueError(f"count as {name!r}, but {shown(value)}")
            read[name] = value
        elif name == "weights" and value is None:
            read[name] = None
        else:
            read[name] = _read_list(name, value)
    return read


def _read_list(name: str, value: Any) -> tuple[Any, ...]:
    wanted = _LISTS[name]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"list as {name!r}, but {shown(value)}")
    if wanted is str and any(len(item) > LONGEST for item in value if isinstance(item, str)):
        raise ValueError(f"list of words as {name!r}, but one of more than {LONGEST:,} characters in it")
    for item in value:
        if not (is_count(item) if wanted is int else isinstance(item, wanted)) or (wanted is float and not _is_weight(item)):
            raise ValueError(f"list of {'counts' if wanted is int else wanted.__name__} as {name!r}, but {shown(item)} in it")
    return tuple(value)


def _is_weight(value: float) -> bool:
    return math.isfinite(value) and value > 0
