"""What making trajectories costs, in nanoseconds of a core of 2025: counted and not measured, so the same on every machine.

A step costs so much a cell and colour, a probe's bytes so much to compress. Estimates are within a factor of two of what an
AMD EPYC takes; limits leave room for that.
"""

from __future__ import annotations

from megatron_nca.automaton.complexity import PROBE_FRAMES, probe_bytes
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.tokens import frames_for

CELL, COLOUR, NOISE = 8, 1, 6
"""Cost of a step: for each cell, for each of its colours, and for the noise of each colour that may win by it."""
NOISY = 1e-3
"""A temperature above which most colours of most cells may."""
BYTE = 40
"""Cost of compressing a probe's byte; bytes that repeat cost less, and long near-repetitions more."""
RULE = 10_000
TOKEN = 5


def step_cost(config: NCAConfig) -> int:
    """Return what one step costs."""
    noise = NOISE if config.temperature > NOISY else 0
    return config.grid**2 * (CELL + (COLOUR + noise) * config.colors)


def probe_cost(config: NCAConfig) -> int:
    """Return what judging one candidate costs."""
    return RULE + step_cost(config) * (config.burn_in + (PROBE_FRAMES - 1) * config.dt) + BYTE * probe_bytes(config)


def trajectory_cost(config: NCAConfig, tokens: int) -> int:
    """Return what so many tokens of one trajectory cost, once its rule has been found."""
    steps = config.burn_in + (frames_for(config, tokens) - 1) * config.dt
    return RULE + step_cost(config) * steps + TOKEN * tokens


def tokens_a_second(config: NCAConfig, tokens: int, acceptance: float) -> float:
    """Return about how many tokens a core makes.

    Args:
        config: The process.
        tokens: Tokens of a trajectory.
        acceptance: Share of random rules that lie in the band, above 0.
    """
    search = 0.0 if config.gzip is None else probe_cost(config) / acceptance
    return 1e9 * tokens / (search + trajectory_cost(config, tokens))
