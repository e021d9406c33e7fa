"""The grammar of a ``phase:`` word: ``phase:key=value,key=value`` -> a frozen PhaseWord."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from megatron_nca.automaton.config import split_pairs
from megatron_nca.data.entry import PHASE_KEYS, is_nca, parse_batch, parse_count, parse_positive, parse_share
from megatron_nca.errors import ConfigError, EntryError

SCHEME = "phase:"
PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "tokens": parse_positive,
    "ramp": parse_count,
    "floor": parse_share,
    "batch": parse_batch,
}


@dataclass(frozen=True)
class PhaseWord:
    """How long the mixture that follows the word holds.

    Attributes:
        text: The word as the user wrote it.
        tokens: Training tokens of the phase, or None to the end of the run.
        ramp: Tokens over which its share falls from 1 to ``floor`` once ``tokens`` have been given.
        floor: Share that it keeps afterwards.
        batch: Sequences of a global batch of the phase, or None for the run's.
    """

    text: str
    tokens: int | None = None
    ramp: int = 0
    floor: Fraction = Fraction(0)
    batch: int | None = None


def is_phase_word(word: str) -> bool:
    """Tell whether a word of a data path is a ``phase:`` word."""
    return word.strip().lower().startswith(SCHEME)


def is_ours(word: str) -> bool:
    """Tell whether a word of a data path is one of the plugin's."""
    return is_nca(word) or is_phase_word(word)


def is_number(word: str) -> bool:
    """Tell whether a word of a data path is a weight."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def parse_phase_word(text: str) -> PhaseWord:
    """Read a ``phase:`` word.

    Raises:
        EntryError: Names the word, what is wrong in it and what would be right.
    """
    try:
        pairs = split_pairs(text.strip(), SCHEME)
        for key, value in pairs.items():
            if key not in PARSERS:
                known = ", ".join(PARSERS)
                raise ConfigError(key, value, f"is no key of a phase; the keys are {known}, an entry's go with nca:")
        settings = {key: PARSERS[key](key, value) for key, value in pairs.items()}
        if "tokens" not in settings:
            _refuse_without_tokens(pairs)
    except ConfigError as error:
        raise EntryError(text, str(error)) from None
    return PhaseWord(text=text, **settings)


def _refuse_without_tokens(pairs: dict[str, str]) -> None:
    for key in PHASE_KEYS:
        if key in pairs and key != "batch":
            raise ConfigError(key, pairs[key], "begins where the phase's tokens end; give tokens=... too, or leave it out")


def blend_of(words: Sequence[str]) -> tuple[list[str], list[float] | None]:
    """Read a data path as Megatron's ``get_blend_from_list`` does where it reads one, without Megatron-Core.

    Args:
        words: Prefixes, or weights and prefixes in turn.

    Returns:
        (prefixes, weights); no weights unless every second word is a number.
    """
    cleaned = [str(word).strip() for word in words]
    if cleaned and len(cleaned) % 2 == 0 and all(is_number(word) for word in cleaned[::2]):
        return cleaned[1::2], [float(word) for word in cleaned[::2]]
    return cleaned, None
