"""Does an entry's band hold rules at all? Asked before anything is built on it."""

from __future__ import annotations

import numpy as np

from megatron_nca.automaton.source import NCASource
from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import EntryError

ACCEPTANCE_PROBES = 256
ACCEPTANCE_ROUNDS = 16
"""A band that none of 4,096 random rules falls into would stall the data loader, so it is refused."""


def check_band(entry: NCAEntry) -> None:
    """Refuse an entry whose band holds no rules.

    Raises:
        EntryError: None of 4,096 random rules lies in it; the message says where most do.
    """
    source = NCASource(entry.config)
    for probed in range(ACCEPTANCE_ROUNDS):
        if source.acceptance(ACCEPTANCE_PROBES, first=probed * ACCEPTANCE_PROBES) > 0:
            return
    lo, hi = np.quantile(source.complexities(ACCEPTANCE_PROBES), [0.05, 0.95])
    raise EntryError(
        entry.text,
        f"gzip: none of {ACCEPTANCE_PROBES * ACCEPTANCE_ROUNDS:,} random rules of these settings compresses to a ratio in "
        f"{entry.config.gzip}, most lie between {lo:.2f} and {hi:.2f}; give a band there, or gzip=none",
    )
