"""What subcommands share: exit codes, parsers, arguments of one meaning, JSON, tables and the progress bar."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megatron_nca.automaton.source import SPLITS, NCASource
from megatron_nca.data import controls
from megatron_nca.data.entry import NCAEntry, parse_count
from megatron_nca.errors import ConfigError, NCAError

OK, FINDING, USAGE = 0, 1, 2
DEFAULT_SEED = 1234
"""Megatron's own default."""
SECONDS_BETWEEN_LINES = 15.0
"""In a log file every update of a bar is a line of its own."""


class UsageError(NCAError):
    """A command cannot do what it was asked; the message says what to change."""


def add_command(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    """Add a subcommand with ``--json`` and examples under its help.

    Args:
        subparsers: Of the dispatcher.
        name: Of the subcommand.
        run: Called with the parsed arguments; returns the exit code.
        summary: One line for the list of commands, and the first of the command's help.
        examples: Shown as they are.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)
    return parser


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that, with an entry, determine trajectories."""
    parser.add_argument("--seed", type=whole(0), default=DEFAULT_SEED, help="seed of the run (default: 1234, as Megatron's)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="whose rules (default: train)")


def make_source(entry: NCAEntry, args: argparse.Namespace) -> NCASource:
    """Return the source that a training run with this entry reads."""
    return controls.make_source(entry, args.seed, args.split)


def whole(least: int) -> Callable[[str], int]:
    """Return an argparse type: a count such as 164M, not below ``least``."""

    def read(text: str) -> int:
        try:
            count = parse_count("", text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(f"{text} {error.problem}") from None
        if count < least:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}")
        return count

    return read


def need(module: str, extra: str = "cli") -> Any:
    """Import an optional package.

    Raises:
        UsageError: It is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(f"this needs {package} ({error}); install it with: pip install 'megatron-nca[{extra}]'") from None


def pyplot() -> Any:
    """Import matplotlib's pyplot without looking for a display."""
    need("matplotlib").use("Agg")
    return need("matplotlib.pyplot")


def print_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Lines of an aligned table; the first ``left`` columns begin at the left, numbers end at the right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for number, row in enumerate(cells):
        parts = [cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in
                 enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  ".join(parts).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr; without tqdm there is none.

    Args:
        title: Before the bar.
        total: Units of work.
        unit: Their name.
        done: Those that were done before.
        shown: Whether to show it.

    Yields:
        A function to call with the units done since the last call.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda _: None
        return
    interval = 0.2 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES
    with tqdm(
        desc=title,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=True,
        disable=not shown,
        mininterval=interval,
        file=sys.stderr,
    ) as bar:

        def advance(units: int) -> None:
            bar.update(units)

        yield advance


def check_output(option: str, path: Path) -> None:
    """Refuse, before any work, a place where no file can be written.

    Raises:
        UsageError: It is empty or a folder, its folder is missing, or nobody may write there.
    """
    if not path.name:
        raise UsageError(f"{option} {str(path)!r}: must name a file")
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: the folder {path.parent} cannot be written to")
