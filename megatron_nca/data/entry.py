"""The grammar of an ``nca:`` entry: ``nca:key=value,key=value`` -> a frozen NCAEntry, without a look at any file.

A key belongs to the process (``NCAConfig``), to the phase (``tokens``, ``ramp``, ``floor``, ``batch``), or says how
trajectories become training samples (``trajectory``, ``vocab``, ``loss``, ``rules``, ``seed``, ``domain``).
``domain=auto:PREFIX`` leaves the band open; ``domain.measured`` reads that text and fills it in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from megatron_nca.automaton.config import (
    DOMAIN_BANDS,
    SCHEME,
    SETTING_PARSERS,
    NCAConfig,
    parse_integer,
    parse_settings,
    split_pairs,
)
from megatron_nca.automaton.cost import probe_cost, trajectory_cost
from megatron_nca.automaton.philox import MAX_INDEX
from megatron_nca.errors import ConfigError, EntryError

COUNT_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
MAX_COUNT = 10**18
MAX_BATCH = 10**9
PHASE_KEYS = ("ramp", "floor", "batch")
"""What belongs to a phase, and so wants its length."""

LOSSES = ("frames", "all", "patches")
CONTROLS = ("shuffled", "dyck")
DEFAULT_DOMAIN = "web"
AUTO = "auto:"
DEFAULT_TRAJECTORY = 1024
MAX_COST = 25_000_000
"""Nanoseconds of a core that a candidate may take: a bad band is told after dozens, and a loader makes one at a time."""
MIN_FRAMES = 2
"""A trajectory's first frame cannot be predicted, so one frame alone teaches nothing."""

_COUNT = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)([KMBT]?)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class NCAEntry:
    """One ``nca:`` entry of a data path.

    Attributes:
        text: The entry as the user wrote it.
        config: The process; its band is None as long as ``band_from`` is not.
        tokens: Training tokens of the phase, or None for an entry of the blend that follows the phases.
        ramp: Tokens over which the phase's share falls from 1 to ``floor`` once ``tokens`` have been given.
        floor: Share that the phase keeps afterwards.
        batch: Sequences of a global batch of the phase, or None for the run's.
        rules: Size of the pool of rules, or None for a fresh rule for every trajectory.
        trajectory: Tokens that a trajectory fills in a packed sequence, its EOD included.
        vocab_offset: First tokenizer id to use, or None for the lowest ids that are not special tokens.
        loss: ``frames``, ``all`` or ``patches``: which labels carry loss.
        seed: Seed of the process, or None for the run's.
        control: ``shuffled`` or ``dyck``: what is made in the trajectories' place, to compare with; None for trajectories.
        rare: Whether a band that holds few rules, and so is slow, is taken all the same.
        band_from: Prefix of the text whose measured band is still to be filled in, or None.
    """

    text: str
    config: NCAConfig
    tokens: int | None = None
    ramp: int = 0
    floor: Fraction = Fraction(0)
    batch: int | None = None
    rules: int | None = None
    trajectory: int = DEFAULT_TRAJECTORY
    vocab_offset: int | None = None
    loss: str = "frames"
    seed: int | None = None
    control: str | None = None
    rare: bool = False
    band_from: str | None = None

    @property
    def is_phase(self) -> bool:
        """Whether the entry is a phase rather than a part of the blend that follows."""
        return self.tokens is not None


def is_nca(prefix: str) -> bool:
    """Tell whether a dataset prefix is an ``nca:`` entry."""
    return prefix.strip().lower().startswith(SCHEME)


def parse_entry(text: str) -> NCAEntry:
    """Read an ``nca:`` entry.

    Args:
        text: The entry as it stands in the data path.

    Returns:
        The entry, defaults filled in.

    Raises:
        EntryError: Names the entry, what is wrong in it and what would be right.
    """
    try:
        return _parse(text)
    except ConfigError as error:
        raise EntryError(text, str(error)) from None


def _parse(text: str) -> NCAEntry:
    stripped = text.strip()
    if not is_nca(stripped):
        raise EntryError(text, f"must start with {SCHEME!r}")
    pairs = split_pairs(stripped)
    _require_known(pairs)
    settings = {key: parse(key, pairs[key]) for key, parse in ENTRY_PARSERS.items() if key in pairs}
    process = parse_settings({key: value for key, value in pairs.items() if key in SETTING_PARSERS})
    domain = settings.pop("domain", DEFAULT_DOMAIN)
    if "gzip" not in process and domain.startswith(AUTO):
        settings["band_from"] = domain.removeprefix(AUTO)
    elif "gzip" not in process:
        process["gzip"] = DOMAIN_BANDS[domain]
    if "vocab" in settings:
        settings["vocab_offset"] = settings.pop("vocab")
    entry = NCAEntry(text=text, config=NCAConfig(**process), **settings)
    _check_phase(entry, pairs)
    _check_trajectory(entry)
    _check_cost(entry)
    return entry


def _require_known(pairs: Mapping[str, str]) -> None:
    for key, value in pairs.items():
        if key not in ENTRY_PARSERS and key not in SETTING_PARSERS:
            known = sorted([*ENTRY_PARSERS, *SETTING_PARSERS])
            raise ConfigError(key, value, f"is no key of an entry{_meant(key, known)}; the keys are {', '.join(known)}")


def _meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _check_phase(entry: NCAEntry, pairs: Mapping[str, str]) -> None:
    for key in PHASE_KEYS:
        if key in pairs and not entry.is_phase:
            raise ConfigError(key, pairs[key], "belongs to a phase; give tokens=... too, or leave it out")


def _check_trajectory(entry: NCAEntry) -> None:
    least = MIN_FRAMES * entry.config.frame_length
    if entry.trajectory < least:
        raise ConfigError(
            "trajectory",
            entry.trajectory,
            f"is shorter than {MIN_FRAMES} frames of {entry.config.frame_length} tokens; give at least {least}",
        )


def _check_cost(entry: NCAEntry) -> None:
    """Refuse a process of which one probe, or two frames of a trajectory, take too long for a data loader."""
    config = entry.config
    filtered = config.gzip is not None or entry.band_from is not None
    cost = probe_cost(config) if filtered else trajectory_cost(config, MIN_FRAMES * config.frame_length)
    if cost > MAX_COST:
        dearest, value = _dearest(config)
        raise ConfigError(
            dearest,
            value,
            f"makes {'one candidate rule' if filtered else 'two frames of a trajectory'} take about {cost / 1e9:.2g} s "
            f"of a core; at most {MAX_COST / 1e9:g} s are taken, so give a smaller value"
            + (", or gzip=none" if filtered and dearest == "grid" else ""),
        )


def _dearest(config: NCAConfig) -> tuple[str, int]:
    """Return the setting whose cost stands out, and its value."""
    defaults = NCAConfig()
    excess = {name: getattr(config, name) / max(getattr(defaults, name), 1) for name in ("burn_in", "dt")}
    excess["grid"] = (config.grid / defaults.grid) ** 2
    dearest = max(excess, key=lambda name: excess[name])
    return dearest, getattr(config, dearest)


def parse_count(key: str, text: str) -> int:
    """Read a count such as ``164M`` or ``1.5B``: a number of at most 10**18, with K, M, B or T for powers of 1000."""
    match = _COUNT.fullmatch(text)
    count = Decimal(match[1]) * COUNT_UNITS[match[2].upper()] if match else Decimal("0.5")
    if count != int(count):
        raise ConfigError(key, text, "is not a count; write a whole number, also with K, M, B or T, as in 164M")
    if count > MAX_COUNT:
        raise ConfigError(key, text, f"is too large; at most {MAX_COUNT:.0e}")
    return int(count)


def parse_positive(key: str, text: str) -> int:
    """Read a count of at least 1."""
    count = parse_count(key, text)
    if count == 0:
        raise ConfigError(key, text, "must be at least 1; leave the key out for none")
    return count


def _parse_rules(key: str, text: str) -> int:
    count = parse_positive(key, text)
    if count > MAX_INDEX:
        raise ConfigError(key, text, "is too large a pool; leave the key out for a fresh rule in every trajectory")
    return count


def parse_batch(key: str, text: str) -> int:
    """Read a global batch: a count of sequences that some cluster could hold."""
    count = parse_positive(key, text)
    if count > MAX_BATCH:
        raise ConfigError(key, text, f"is too large; a batch has at most {MAX_BATCH:,} sequences")
    return count


def parse_share(key: str, text: str) -> Fraction:
    """Read a decimal number from 0 to 1, exactly."""
    # A Fraction of the decimal text is exact; of a float it would carry 2**-52 into every count. A remainder of less than a
    # billionth would ask for more samples of a source than Megatron's int64 counts.
    share = Fraction(text) if re.fullmatch(r"(\d{1,3}(\.\d{0,9})?|\.\d{1,9})", text, re.ASCII) else Fraction(-1)
    if not 0 <= share <= 1:
        raise ConfigError(key, text, "is not a share; write a decimal number from 0 to 1, of nine decimals at most, as in 0.05")
    return share


def _parse_seed(key: str, text: str) -> int:
    seed = parse_integer(key, text)
    if seed < 0:
        raise ConfigError(key, text, "must not be negative")
    return seed


def _parse_choice(*choices: str) -> Callable[[str, str], str]:
    def parse(key: str, text: str) -> str:
        if text not in choices:
            raise ConfigError(key, text, f"must be one of {', '.join(choices)}{_meant(text, choices)}")
        return text

    return parse


def _parse_yes(key: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise ConfigError(key, text, "must be yes or no")
    return text == "yes"


def _parse_domain(key: str, text: str) -> str:
    measured = text.startswith(AUTO) and text != AUTO
    if text not in DOMAIN_BANDS and not measured:
        offered = f"must be one of {', '.join(DOMAIN_BANDS)}, or {AUTO}PREFIX of a tokenised text"
        raise ConfigError(key, text, offered + _meant(text, DOMAIN_BANDS))
    return text


def _parse_vocab(key: str, text: str) -> int | None:
    if text == "shared":
        return None
    mode, colon, offset = text.partition(":")
    if mode != "offset" or not colon or not (offset.isascii() and offset.isdigit() and len(offset) < 12):
        raise ConfigError(key, text, "must be shared, or offset:N with the first id to use, as in offset:50304")
    return int(offset)


ENTRY_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "tokens": parse_positive,
    "ramp": parse_count,
    "floor": parse_share,
    "batch": parse_batch,
    "domain": _parse_domain,
    "rules": _parse_rules,
    "trajectory": parse_positive,
    "vocab": _parse_vocab,
    "loss": _parse_choice(*LOSSES),
    "seed": _parse_seed,
    "control": _parse_choice(*CONTROLS),
    "rare": _parse_yes,
}
