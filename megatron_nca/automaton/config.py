"""The settings of the process: one frozen dataclass, its checks, and its ``nca:`` form and back.

Defaults are those of the paper (arXiv:2603.10055): a 12 x 12 torus of 10 colours, 2 x 2 patches, temperature 1e-4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from megatron_nca.errors import ConfigError

SCHEME = "nca:"

DELIMITERS = 2
"""Ids after the patch tokens: ``<grid>`` opens a frame, ``</grid>`` closes it."""

MAX_VOCAB_SIZE = 2**31 - 1
MAX_GRID = 256
MAX_COLORS = 64
MAX_TEMPERATURE = 100.0
MAX_IDENTITY_BIAS = 10.0
"""Fifty standard deviations of a logit: no cell changes any more. It keeps scores below 2**24, where float32 is exact."""
MAX_STEPS = 2**20
MAX_DT = 2**12

_BAND = re.compile(r"([\d.]+(?:e[+-]?\d+)?)-([\d.]+(?:e[+-]?\d+)?)", re.ASCII | re.IGNORECASE)

DOMAIN_BANDS: Mapping[str, tuple[float, float]] = {
    "web": (0.5, 1.0),
    "math": (0.5, 1.0),
    "code": (0.3, 0.4),
}
"""The complexity band that the paper matches to each kind of text."""


@dataclass(frozen=True)
class NCAConfig:
    """A family of random neural cellular automata and how their trajectories become tokens.

    Attributes:
        grid: Side of the square torus, in cells; a multiple of ``patch``.
        colors: Number of states of a cell.
        patch: Side of the square patch of cells that makes one token.
        temperature: Temperature of the softmax from which a cell's next colour is drawn; 0 is the argmax.
        identity_bias: Added to the logit of a cell's present colour.
        burn_in: Steps before the first frame.
        dt: Steps from one frame to the next.
        gzip: Open interval (lo, hi) in which a rule's compression ratio must lie, or None for every rule.

    Raises:
        ConfigError: A value is of the wrong type or out of range; the message says which and what would be right.
    """

    grid: int = 12
    colors: int = 10
    patch: int = 2
    temperature: float = 1e-4
    identity_bias: float = 0.0
    burn_in: int = 10
    dt: int = 1
    gzip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _require_integer("grid", self.grid, 2, MAX_GRID)
        _require_integer("colors", self.colors, 2, MAX_COLORS)
        _require_integer("patch", self.patch, 1, self.grid)
        _require_integer("burn_in", self.burn_in, 0, MAX_STEPS)
        _require_integer("dt", self.dt, 1, MAX_DT)
        _require_number("temperature", self.temperature, 0.0, MAX_TEMPERATURE)
        _require_number("identity_bias", self.identity_bias, -MAX_IDENTITY_BIAS, MAX_IDENTITY_BIAS)
        object.__setattr__(self, "temperature", float(self.temperature))
        # Adding 0.0 turns -0.0 into 0.0, so that equal settings have one canonical form.
        object.__setattr__(self, "identity_bias", float(self.identity_bias) + 0.0)
        if self.grid % self.patch:
            raise ConfigError("patch", self.patch, f"does not divide the grid; give a divisor of {self.grid} or another grid")
        if self.colors ** (self.patch**2) + DELIMITERS > MAX_VOCAB_SIZE:
            raise ConfigError(
                "patch",
                self.patch,
                f"{self.colors} colors make {self.colors}**{self.patch**2} patch tokens, more than an int32 holds; "
                "give a smaller patch or fewer colors",
            )
        if self.gzip is not None:
            object.__setattr__(self, "gzip", _checked_band(self.gzip))

    @property
    def patch_tokens(self) -> int:
        """Number of distinct patch tokens, ``colors ** patch**2``."""
        return int(self.colors ** (self.patch**2))

    @property
    def vocab_size(self) -> int:
        """Number of ids in use, the two delimiters included."""
        return self.patch_tokens + DELIMITERS

    @property
    def frame_length(self) -> int:
        """Tokens of one frame, its two delimiters included."""
        return (self.grid // self.patch) ** 2 + DELIMITERS

    @classmethod
    def from_uri(cls, uri: str) -> NCAConfig:
        """Read ``nca:key=value,...`` with the keys of the process alone.

        Raises:
            ConfigError: The text is not of that form, or a value is out of range.
        """
        if not uri.startswith(SCHEME):
            raise ConfigError("uri", uri, f"must start with {SCHEME!r}")
        return cls(**parse_settings(split_pairs(uri)))

    def to_uri(self) -> str:
        """Return the canonical ``nca:`` form: every setting, in the order of the fields.

        Two configs are equal exactly if these are; random streams are keyed by it.
        """
        return SCHEME + ",".join(f"{field.name}={format_setting(getattr(self, field.name))}" for field in fields(self))


def split_pairs(uri: str, scheme: str = SCHEME) -> dict[str, str]:
    """Split ``nca:key=value,key=value``, or the like of another scheme, into its pairs, in order.

    Raises:
        ConfigError: A part is not ``key=value``, or a key stands twice.
    """
    body = uri[len(scheme) :].strip()
    pairs: dict[str, str] = {}
    for part in body.split(",") if body else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise ConfigError("entry", repr(part), f"is not key=value; write {scheme}key=value,key=value")
        if key in pairs:
            raise ConfigError(key, value, f"stands twice, first as {key}={pairs[key]}; give it once")
        pairs[key] = value
    return pairs


def parse_settings(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Turn the texts of process settings into the values that ``NCAConfig`` takes.

    Raises:
        ConfigError: A key is none of the process's, or a text is not of its kind.
    """
    unknown = [key for key in pairs if key not in SETTING_PARSERS]
    if unknown:
        known = ", ".join(SETTING_PARSERS)
        raise ConfigError(unknown[0], pairs[unknown[0]], f"is no setting of the process; these are {known}")
    return {key: SETTING_PARSERS[key](key, text) for key, text in pairs.items()}


def parse_integer(key: str, text: str) -> int:
    """Read a plain whole number such as ``12``."""
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20):
        raise ConfigError(key, text, "is not a whole number; write digits alone, as in 12")
    return int(text)


def parse_number(key: str, text: str) -> float:
    """Read a finite decimal number such as ``1e-4``."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text or not text.isascii():
        raise ConfigError(key, text, "is not a number; write one as in 0.5 or 1e-4")
    return number


def parse_band(key: str, text: str) -> tuple[float, float] | None:
    """Read ``LO-HI`` or ``none``."""
    if text == "none":
        return None
    bounds = _BAND.fullmatch(text)
    if not bounds:
        raise ConfigError(key, text, "is not a band; write LO-HI, as in 0.5-1.0, or none")
    return parse_number(key, bounds[1]), parse_number(key, bounds[2])


SETTING_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "grid": parse_integer,
    "colors": parse_integer,
    "patch": parse_integer,
    "temperature": parse_number,
    "identity_bias": parse_number,
    "burn_in": parse_integer,
    "dt": parse_integer,
    "gzip": parse_band,
}


def format_setting(value: object) -> str:
    """Write a setting as an entry has it; ``parse_settings`` reads it back."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "-".join(repr(float(bound)) for bound in value)
    return repr(value)


def _require_integer(field: str, value: object, lo: int, hi: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(field, value, "is not a whole number")
    if not lo <= value <= hi:
        raise ConfigError(field, value, f"must lie between {lo} and {hi}")


def _require_number(field: str, value: object, lo: float, hi: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(field, value, "is not a finite number")
    if not lo <= value <= hi:
        raise ConfigError(field, value, f"must lie between {lo:g} and {hi:g}")


def _checked_band(band: object) -> tuple[float, float]:
    if not (isinstance(band, (tuple, list)) and len(band) == 2):
        raise ConfigError("gzip", band, "is not a band; give (lo, hi) or None")
    for bound in band:
        _require_number("gzip", bound, 0.0, 10.0)
    lo, hi = (float(bound) + 0.0 for bound in band)
    if lo >= hi:
        raise ConfigError("gzip", format_setting((lo, hi)), "is empty; the first bound must be below the second")
    return lo, hi
