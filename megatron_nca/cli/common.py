"""What subcommands share: exit codes, parsers, arguments of one meaning, JSON, tables and the progress bar."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import shutil
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
LONGEST, MOST_PROCESSES = 2**24, 1024
"""Tokens of a sequence, processes that work at once: above what anybody has."""
SECONDS_BETWEEN_LINES = 15.0
"""Seconds between updates where output is no terminal: in a log file every update of a bar is a line of its own."""


class UsageError(NCAError):
    """A command cannot do what it was asked; the message says what to change."""


def add_command(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    """Add a subcommand with ``--json`` and examples under its help.

    Args:
        subparsers: Subparsers of the dispatcher.
        name: Name of the subcommand.
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
    parser.add_argument("--seed", type=at_least(0), default=DEFAULT_SEED, help="seed of the run (default: 1234, as Megatron's)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="whose rules (default: train)")


def make_source(entry: NCAEntry, args: argparse.Namespace) -> NCASource:
    """Return the source that a training run with this entry reads."""
    return controls.make_source(entry, args.seed, args.split)


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: a count such as 164M, not below ``least`` and not above ``most``."""

    def read(text: str) -> int:
        try:
            count = parse_count("", text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(f"{text} {error.problem}") from None
        if count < least:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}")
        if most is not None and count > most:
            raise argparse.ArgumentTypeError(f"{text} must be at most {most:,}")
        return count

    return read


def finite(text: str) -> float:
    """Read a finite number for argparse."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no number, such as 1e-4") from None
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} must be a finite number")
    return number


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
        title: Text before the bar.
        total: Units of work.
        unit: Their name.
        done: Units that were done before.
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


def check_output(option: str, path: Path, endings: Sequence[str] = ()) -> None:
    """Refuse, before any work, a place where no file can be written.

    Args:
        option: Which names it.
        path: The place.
        endings: One of which its name must have, small or capital.

    Raises:
        UsageError: It is empty, a folder or a device, its folder is missing, nobody may write there, or its ending is another.
    """
    if not path.name:
        raise UsageError(f"{option} {str(path)!r}: must name a file")
    check_folder(option, path)
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; name a file in it")
    if endings and path.suffix.lower() not in endings:
        raise UsageError(f"{option} {path}: must end with {' or '.join(endings)}")
    if path.exists() and not path.is_file():
        raise UsageError(f"{option} {path}: is no ordinary file, and would be replaced by one; name another")


def check_folder(option: str, path: Path) -> None:
    """Refuse, before any work, a place whose folder is missing, or cannot be written to.

    Raises:
        UsageError: It is one.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: the folder {path.parent} cannot be written to")
    longest = os.pathconf(path.parent, "PC_NAME_MAX")
    # WriteResult beside it under a longer name.
    if len(os.fsencode(path.name)) > longest - len(".building") - 1:
        raise UsageError(f"{option} {str(path)[:40]}...: the name is too long; {path.parent} takes {longest:,} bytes")


def check_room(option: str, path: Path, size: int) -> None:
    """Refuse, before any work, a place without room.

    Args:
        option: Which names it.
        path: A file or folder to be.
        size: Size of what will be written, in bytes.

    Raises:
        UsageError: The file system has less left.
    """
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise UsageError(f"{option} {path}: {size:,} bytes are to be written, and {free:,} are left there")
