"""Does an entry's band hold enough rules? Asked before anything is built on it, and answered within a second or two.

A trajectory costs one probe a candidate, so the share of random rules in the band sets the speed. Candidates are looked at
until the answer is clear, or as many as a second's work pays for; that work is counted, not timed, so every rank decides alike.
"""

from __future__ import annotations

import numpy as np

from megatron_nca.automaton.config import DOMAIN_BANDS, NCAConfig, format_setting
from megatron_nca.automaton.cost import probe_cost, tokens_a_second
from megatron_nca.automaton.source import NCASource
from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import EntryError

LEAST = 0.01
"""Least acceptance: below it a trajectory takes a hundred candidates, and 100,000s of tokens a second become 10,000s."""
LEAST_RARE = 0.001
"""Least acceptance with ``rare=yes``: 65,536 candidates without a rule, which end a run, are then out of the question."""
CLEAR = 8
"""Accepted candidates of a share twice the least that settle it."""
AT_ONCE, AT_LEAST = 16, 32
FEW = 2
"""Accepted candidates from which a speed can be told."""
WORK = 600_000_000
"""Nanoseconds, see ``automaton.cost``."""
SUGGESTION = (0.15, 0.85)
"""Quantiles of random rules' ratios between which a band is suggested."""


KNOWN = frozenset(NCAConfig(gzip=band) for band in DOMAIN_BANDS.values())
"""Processes that hold enough, the paper's: a launch of one, and a plan of it, need not look."""


def check_band(entry: NCAEntry, engine: str = "compiled") -> None:
    """Refuse an entry whose band holds too few rules.

    Args:
        entry: The entry.
        engine: Which one makes the candidates. The reference needs a tenth of a second for a hundred, and a third of the time
            that a machine takes to compile the kernels, once.

    Raises:
        EntryError: Less than one of a hundred random rules lies in it (one of a thousand with ``rare=yes``); the message says
            how fast it would be, and which band would do.
    """
    if entry.config.gzip is None or entry.config in KNOWN:
        return
    count_rules(entry, engine)


def count_rules(entry: NCAEntry, engine: str = "compiled") -> None:
    """Look at candidates until the answer is clear; see ``check_band``."""
    assert entry.config.gzip is not None
    source = NCASource(entry.config, engine=engine)
    least = LEAST_RARE if entry.rare else LEAST
    most = max(min(WORK // probe_cost(entry.config), int(16 / least)), AT_LEAST)
    probed = accepted = 0
    while probed < most:
        count = min(AT_ONCE, most - probed)
        accepted += round(source.acceptance(count, first=probed) * count)
        probed += count
        if accepted >= CLEAR and accepted >= 2 * least * probed:
            return
    if accepted < least * probed:
        speed, remedy = _slowness(entry, accepted / probed) if accepted >= FEW and not entry.rare else ("", "")
        raise EntryError(
            entry.text,
            f"gzip={format_setting(entry.config.gzip)}: {accepted:,} of {probed:,} random rules of these settings compress to "
            f"a ratio in it{speed}; {_suggestion(source)}; give that or another band, or gzip=none{remedy}",
        )


def _slowness(entry: NCAEntry, acceptance: float) -> tuple[str, str]:
    """Return how slow the band is, and what takes it all the same."""
    rate = tokens_a_second(entry.config, entry.trajectory, acceptance)
    return f", so a core would make about {rate:,.0f} tokens a second", ", or add rare=yes to take it as it is"


def _suggestion(source: NCASource) -> str:
    """Return which band holds most rules of a process, outwards to whole percents and never empty."""
    ratios = source.complexities(int(max(min(WORK // 4 // probe_cost(source.config), 256), AT_LEAST // 2)))
    lo, hi = np.quantile(ratios, SUGGESTION)
    band = (int(100 * lo) / 100, int(100 * hi + 1) / 100)
    inside = float(((ratios > band[0]) & (ratios < band[1])).mean())
    return f"gzip={format_setting(band)} holds {inside:.0%} of them"
