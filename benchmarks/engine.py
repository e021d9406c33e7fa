"""Tokens a second of the engines, where the compiled one spends its time, and what starting it costs.

Run as ``python -m benchmarks.engine [--quick]``. All of it is one core's CPU time; contestants take turns, and the fastest
round of each counts, because neighbours on a shared machine can only slow one down. A trajectory is 1025 tokens, of which 1024
train.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import psutil

from benchmarks.yardstick import Yardstick
from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.compiled import CompiledEngine
from megatron_nca.automaton.complexity import PROBE_FRAMES
from megatron_nca.automaton.source import ENGINES
from megatron_nca.automaton.tokens import frames_for

LENGTH = 1025
BANDS = {"unfiltered": None, "0.5-1.0": (0.5, 1.0), "0.3-0.4": (0.3, 0.4)}
SHARES_BAND = (0.5, 1.0)

FIRST_SAMPLE = """
from megatron_nca import NCAConfig, NCASource
NCASource(NCAConfig(gzip=(0.5, 1.0))).tokens(0, 1025)
"""
IMPORT_ONLY = "import megatron_nca, numpy, numba"


@dataclass(frozen=True)
class Contestant:
    """An engine and how it is asked.

    Attributes:
        label: For the table.
        engine: Name of the engine.
        batch: Trajectories asked for at once.
        trajectories: Trajectories of one round.
    """

    label: str
    engine: str
    batch: int
    trajectories: int


CONTESTANTS = (
    Contestant("reference (numpy), one at a time", "reference", 1, 4),
    Contestant("reference (numpy), 64 at a time", "reference", 64, 64),
    Contestant("yardstick (plain numba)", "yardstick", 64, 64),
    Contestant("compiled, one at a time", "compiled", 1, 512),
)
REFERENCE, YARDSTICK = 0, 2
"""Places of those that the others are compared with."""


def rates(band: tuple[float, float] | None, rounds: int) -> list[float]:
    """Measure tokens a second of each contestant."""
    config = NCAConfig(gzip=band)
    sources = [NCASource(config, engine=contestant.engine) for contestant in CONTESTANTS]
    check_same_tokens(sources)
    seconds: list[list[float]] = [[] for _ in CONTESTANTS]
    for number in range(rounds):
        for contestant, source, taken in zip(CONTESTANTS, sources, seconds, strict=True):
            taken.append(cpu_seconds(read, source, contestant, number))
    return [(LENGTH - 1) * contestant.trajectories / min(taken) for contestant, taken in zip(CONTESTANTS, seconds, strict=True)]


def check_same_tokens(sources: list[NCASource]) -> None:
    """Contestants must do the same work; it also compiles what is not compiled yet."""
    first = sources[0].tokens_batch(range(4), LENGTH)
    for source in sources[1:]:
        np.testing.assert_array_equal(source.tokens_batch(range(4), LENGTH), first)


def read(source: NCASource, contestant: Contestant, number: int) -> None:
    """Read the trajectories of one round, which no other round reads."""
    begin = 4 + number * contestant.trajectories
    for first in range(begin, begin + contestant.trajectories, contestant.batch):
        source.tokens_batch(range(first, first + contestant.batch), LENGTH)


def cpu_seconds(action: Callable[..., object], *arguments: object) -> float:
    """CPU time of an action in this process."""
    begin = time.process_time()
    action(*arguments)
    return time.process_time() - begin


def shares(rounds: int, trajectories: int = 256) -> dict[str, float]:
    """Measure where the compiled engine's time goes in the paper's band.

    Work of one kind is timed in one call over all trajectories and all candidates that their search looks at, by leaving it
    out; what one call a trajectory costs beyond the sum is Python's.

    Returns:
        Microseconds a trajectory of each kind of work.
    """
    config = NCAConfig(gzip=SHARES_BAND)
    source = NCASource(config)
    workload = Workload.of(source, trajectories)
    still = CompiledEngine(replace(config, burn_in=0), source.key)
    argmax = CompiledEngine(replace(config, temperature=0.0), source.key)
    engine = CompiledEngine(config, source.key)
    actions = {
        "whole": lambda: [source.tokens(index, LENGTH) for index in range(trajectories)],
        "rules": lambda: workload.roll_out(still, only_first_frame=True),
        "argmax": lambda: workload.roll_out(argmax),
        "grids": lambda: workload.roll_out(engine),
        "probes": lambda: workload.roll_out_probes(engine, PROBE_FRAMES),
        "search": lambda: engine.find_rules(workload.rules),
        "frames": lambda: workload.roll_out_trajectories(engine, workload.frames),
        "tokens": lambda: engine.tokens(workload.rules, workload.accepted, workload.rules, LENGTH),
    }
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            taken[name].append(cpu_seconds(action) * 1e6 / trajectories)
    return differences({name: min(values) for name, values in taken.items()})


def differences(taken: dict[str, float]) -> dict[str, float]:
    """Turn times of actions that contain each other into times of kinds of work."""
    parts = {
        "stepping": taken["argmax"] - taken["rules"],
        "noise": taken["grids"] - taken["argmax"],
        "compressed sizes": taken["search"] - taken["probes"],
        "tokens": taken["tokens"] - taken["frames"],
        "rules and initial states": taken["rules"],
    }
    parts["Python"] = taken["whole"] - taken["search"] - taken["tokens"]
    parts["rest, and what differs between calls"] = taken["whole"] - sum(parts.values())
    return {**parts, "all": taken["whole"]}


@dataclass(frozen=True)
class Workload:
    """What a number of trajectories take.

    Attributes:
        rules: Rule numbers of the trajectories.
        accepted: Their accepted attempts.
        candidate_rules: Rule numbers of all candidates scored to find them.
        candidate_attempts: Their attempts.
        frames: Grids of a trajectory.
    """

    rules: np.ndarray
    accepted: np.ndarray
    candidate_rules: np.ndarray
    candidate_attempts: np.ndarray
    frames: int

    @classmethod
    def of(cls, source: NCASource, trajectories: int) -> Workload:
        """Find the candidates of the first trajectories of a source."""
        rules = np.arange(trajectories)
        accepted = source.engine.find_rules(rules)
        candidate_rules = np.repeat(rules, accepted + 1)
        candidate_attempts = np.concatenate([np.arange(count + 1) for count in accepted])
        return cls(rules, accepted, candidate_rules, candidate_attempts, frames_for(source.config, LENGTH))

    def roll_out(self, engine: CompiledEngine, only_first_frame: bool = False) -> None:
        """Roll out the candidates' probes, from other initial states, and the trajectories."""
        probe, frames = (1, 1) if only_first_frame else (PROBE_FRAMES, self.frames)
        self.roll_out_probes(engine, probe)
        self.roll_out_trajectories(engine, frames)

    def roll_out_probes(self, engine: CompiledEngine, frames: int) -> None:
        """Roll out as many frames of each candidate as of a probe."""
        engine.grids(self.candidate_rules, self.candidate_attempts, self.candidate_rules, frames)

    def roll_out_trajectories(self, engine: CompiledEngine, frames: int) -> None:
        """Roll out the trajectories."""
        engine.grids(self.rules, self.accepted, self.rules, frames)


def start_up() -> dict[str, float]:
    """Measure the CPU seconds of fresh processes, from the interpreter's start to the first sample."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "imports alone": process_seconds(IMPORT_ONLY, folder),
            "first sample, cold kernel cache": process_seconds(FIRST_SAMPLE, folder),
            "first sample, warm kernel cache": min(process_seconds(FIRST_SAMPLE, folder) for _ in range(3)),
        }


def process_seconds(program: str, kernels: str) -> float:
    """CPU seconds of a process with this folder of compiled kernels."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "NUMBA_CACHE_DIR": kernels}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def worker_memory(trajectories: int = 300) -> float:
    """Private memory in MB of a forked worker that reads, above one that does not."""
    source = NCASource(NCAConfig(gzip=SHARES_BAND))
    return (forked_memory(source, range(trajectories)) - forked_memory(source, range(0))) / 2**20


def forked_memory(source: NCASource, indices: range) -> int:
    """Private bytes of a forked process after it has read."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=lambda: results.put(private_memory_after(source, indices)))
    process.start()
    measured = results.get()
    process.join()
    return int(measured)


def private_memory_after(source: NCASource, indices: range) -> int:
    """Read, then look at the memory that this process shares with no other."""
    for index in indices:
        source.tokens(index, LENGTH)
    return int(psutil.Process().memory_full_info().uss)


def rate_table(rounds: int) -> Iterator[str]:
    """Lines of the table of tokens a second."""
    yield "| band | engine | tokens/s | over the reference | over the yardstick |"
    yield "|---|---|---:|---:|---:|"
    for name, band in BANDS.items():
        measured = rates(band, rounds)
        for contestant, rate in zip(CONTESTANTS, measured, strict=True):
            ratios = f"{rate / measured[REFERENCE]:.1f} | {rate / measured[YARDSTICK]:.1f}"
            yield f"| {name} | {contestant.label} | {rate:,.0f} | {ratios} |"


def share_table(rounds: int) -> Iterator[str]:
    """Lines of the table of shares."""
    measured = shares(rounds)
    yield "| compiled, 0.5-1.0 | µs a trajectory | share |"
    yield "|---|---:|---:|"
    for name, microseconds in measured.items():
        yield f"| {name} | {microseconds:.0f} | {microseconds / measured['all']:.0%} |"


def start_table() -> Iterator[str]:
    """Lines of the table of costs of starting."""
    yield "| start-up | |"
    yield "|---|---:|"
    for name, seconds in start_up().items():
        yield f"| {name} | {seconds:.2f} s |"
    yield f"| memory of a worker that has read 300 trajectories, above an idle one | {worker_memory():.1f} MB |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args()
    ENGINES["yardstick"] = Yardstick
    rounds = 2 if arguments.quick else 9
    for table in (start_table(), share_table(3 * rounds), rate_table(rounds)):
        for line in table:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
