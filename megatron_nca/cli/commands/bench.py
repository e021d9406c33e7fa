"""``megatron-nca bench``: what this machine makes of an entry, in tokens a second."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import megatron_nca
from megatron_nca import workers
from megatron_nca.automaton.config import format_setting
from megatron_nca.automaton.source import NCASource
from megatron_nca.cli.common import (
    DEFAULT_SEED,
    LONGEST,
    MOST_PROCESSES,
    OK,
    UsageError,
    add_command,
    at_least,
    finite,
    print_json,
    progress,
    table,
)
from megatron_nca.cli.launch.speed import tokens_a_core
from megatron_nca.data.band import check_band
from megatron_nca.data.domain import read_entry
from megatron_nca.data.entry import NCAEntry

EXAMPLES = """  megatron-nca bench
  megatron-nca bench nca:domain=code 'nca:colors=16,gzip=none' --seq-length 4096 --processes 8
  megatron-nca bench --all --quick       # the repository's own tables, from a checkout"""

ENTRIES = ("nca:gzip=none", "nca:", "nca:domain=code")
TABLES = ("benchmarks.engine", "benchmarks.dataset", "benchmarks.scale")
MODELS = {"1.6B": 1.6e9, "8B": 8e9}
GPU_FLOPS = 400e12
"""Floating-point operations a second of an H100 in practice; a token costs 6 a parameter."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(subparsers, "bench", run, "tokens a second of entries on this machine", EXAMPLES)
    parser.add_argument("entries", nargs="*", default=ENTRIES, metavar="ENTRY", help="(default: the paper's three bands)")
    parser.add_argument("--seq-length", type=at_least(1, LONGEST), default=1024, help="tokens of a sample (default: 1024)")
    parser.add_argument(
        "--processes", type=at_least(1, MOST_PROCESSES), help="processes that generate at once (default: all cores)"
    )
    parser.add_argument("--seconds", type=finite, default=1.0, help="of each measurement (default: 1)")
    parser.add_argument("--all", action="store_true", help="print the tables of docs/performance.md instead; takes minutes")
    parser.add_argument("--quick", action="store_true", help="with --all: fewer rounds")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.all:
        if args.json:
            raise UsageError("--all prints the tables of benchmarks/ as they are; leave out --json")
        return _repository_tables(args)
    if not 0 < args.seconds <= 600:
        raise UsageError(f"--seconds {args.seconds:g}: must lie above 0 and not above 600")
    entries = [read_entry(text) for text in args.entries]
    for entry in entries:
        check_band(entry)
    processes = args.processes or len(os.sched_getaffinity(0))
    measured = []
    with progress("bench", len(entries), "entry", shown=not args.json) as advance:
        for entry in entries:
            measured.append(_measure(entry, args.seq_length, processes, args.seconds))
            advance(1)
    if args.json:
        print_json({"sequence_length": args.seq_length, "processes": processes, "entries": measured})
        return OK
    header = ["entry", "band", "tokens/s a core", "reference", f"tokens/s, {processes} processes"]
    header += [f"GPUs a core feeds, {model}" for model in MODELS]
    print("\n".join(table(header, [_row(one) for one in measured], left=2)))
    print(
        f"\nA core: CPU time, the fastest of three rounds. GPUs: at 6 FLOPs a token and parameter and {GPU_FLOPS:.0e} FLOP/s."
    )
    return OK


def _measure(entry: NCAEntry, length: int, processes: int, seconds: float) -> dict[str, Any]:
    rate = tokens_a_core(entry, length, seconds=seconds / 3)
    return {
        "entry": entry.text,
        "band": format_setting(entry.config.gzip),
        "tokens_a_second_a_core": rate,
        "tokens_a_second_of_the_reference": tokens_a_core(entry, length, engine="reference", seconds=seconds / 3),
        "tokens_a_second_together": _together(entry, length, processes, seconds),
        "gpus_fed_a_core": {model: rate * 6 * parameters / GPU_FLOPS for model, parameters in MODELS.items()},
    }


def _together(entry: NCAEntry, length: int, processes: int, seconds: float) -> float:
    """Measure tokens a second of several processes that generate at the same time."""
    # A process that has its task waits for the others, so each one takes one.
    tasks = [(entry, length, number, seconds) for number in range(processes)]
    return sum(workers.each(processes, _meet, (workers.CONTEXT.Barrier(processes),), _generate, tasks))


_barrier: Any = None


def _meet(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _generate(task: tuple[NCAEntry, int, int, float]) -> float:
    """Return one process's tokens a second of wall time, once all have started."""
    entry, length, number, seconds = task
    source, index = NCASource(entry.config, DEFAULT_SEED, stream=number), 1
    source.tokens(0, length)
    _barrier.wait()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        source.tokens(index, length)
        index += 1
    return (index - 1) * length / (time.perf_counter() - begin)


def _row(one: dict[str, Any]) -> list[str]:
    rates = [one[f"tokens_a_second_{name}"] for name in ("a_core", "of_the_reference", "together")]
    fed = [f"{gpus:,.1f}" for gpus in one["gpus_fed_a_core"].values()]
    return [one["entry"], one["band"], *(f"{rate:,.0f}" for rate in rates), *fed]


def _repository_tables(args: argparse.Namespace) -> int:
    # Not whatever package of that name lies on the path: the repository's own, beside this one.
    root = Path(megatron_nca.__file__).resolve().parents[1]
    if not all((root / f"{module.replace('.', '/')}.py").is_file() for module in TABLES):
        raise UsageError(
            "--all runs benchmarks/ of the repository, which is not here; run it in a checkout, or leave out --all"
        )
    for module in TABLES:
        words = [sys.executable, "-m", module, *(["--quick"] if args.quick else [])]
        code = subprocess.run(words, cwd=root, check=False).returncode
        if code:
            raise UsageError(f"python -m {module} ended with exit code {code}")
    return OK
