"""Tokens a second of an entry on one core of this machine, in CPU time, which neighbours disturb least."""

from __future__ import annotations

import time

from megatron_nca.automaton.source import NCASource
from megatron_nca.data.entry import NCAEntry

SECONDS = 0.3
ROUNDS = 3


def tokens_a_core(entry: NCAEntry, sequence_length: int, engine: str = "compiled", seconds: float = SECONDS) -> float:
    """Measure tokens a second of one core that makes trajectories one at a time, as a data loader asks for them.

    Args:
        entry: Gives the process and the longest trajectory.
        sequence_length: Tokens of a sample.
        engine: Which engine.
        seconds: CPU seconds of a round; the fastest of three counts.
    """
    source = NCASource(entry.config, engine=engine)
    length = min(sequence_length, entry.trajectory)
    source.tokens(0, length)
    best, index = 0.0, 1
    for _ in range(ROUNDS):
        begin, first = time.process_time(), index
        while time.process_time() - begin < seconds:
            source.tokens(index, length)
            index += 1
        best = max(best, (index - first) * length / (time.process_time() - begin))
    return best
