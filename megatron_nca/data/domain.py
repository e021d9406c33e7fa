"""``domain=auto:PREFIX``: an entry's band, measured on a text. The grammar reads no file; this does."""

from __future__ import annotations

import dataclasses

from megatron_nca.data.calibration import calibrate, probe_tokens
from megatron_nca.data.entry import AUTO, NCAEntry, parse_entry
from megatron_nca.errors import ConfigError, EntryError, NCAError


def measured(entry: NCAEntry) -> NCAEntry:
    """Fill in the band that an entry leaves to a text.

    Args:
        entry: An entry as ``parse_entry`` returns it.

    Returns:
        The entry with a band, or as it is where it names no text.

    Raises:
        EntryError: There is no such text, it is not Megatron's, or it is too short.
    """
    if entry.band_from is None:
        return entry
    try:
        band = calibrate(entry.band_from, probe_tokens(entry.config)).band
    except NCAError as error:
        problem = ConfigError("domain", f"{AUTO}{entry.band_from}", str(error))
        raise EntryError(entry.text, str(problem)) from None
    return dataclasses.replace(entry, config=dataclasses.replace(entry.config, gzip=band), band_from=None)


def read_entry(text: str) -> NCAEntry:
    """Parse an ``nca:`` entry and measure what it leaves to a text; for a command that generates from it at once.

    Raises:
        EntryError: It is not usable.
    """
    return measured(parse_entry(text))
