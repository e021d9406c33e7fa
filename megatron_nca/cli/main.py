"""The dispatcher: which subcommands there are, and how each one's outcome becomes an exit code."""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import megatron_nca
from megatron_nca.cli import streams
from megatron_nca.cli.common import USAGE, UsageError, print_json
from megatron_nca.errors import NCAError

COMMANDS = ("preview", "inspect", "plan", "rehearse", "calibrate", "build", "transfer", "compare", "bench", "doctor")
DESCRIPTION = """Neural-cellular-automata pre-pre-training for Megatron-Core.

Every command takes the nca: entry as --data-path does, and --json for machines.
Exit codes: 0 fine, 1 a finding (a bad plan, a failed check), 2 bad usage or input."""
EXAMPLES = """examples:
  megatron-nca preview 'nca:domain=code' --output code.png
  megatron-nca plan --data-path nca:tokens=164M /data/owt --seq-length 1024 --global-batch-size 512 --train-iters 10000
  megatron-nca doctor"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: Arguments; the process's own without them.

    Returns:
        0 where all is well, 1 for a finding, 2 for bad usage or input.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        streams.prepare()
        args = make_parser(words).parse_args(words)
        with warnings.catch_warnings():
            # Megatron-Core tells at every import which optional packages it lacks; `doctor` tells it better.
            warnings.simplefilter("ignore", UserWarning)
            code = int(args.run(args))
            # A disk that is full is told by what is left to write.
            sys.stdout.flush()
            return code
    except NCAError as error:
        return _fail(str(error), words)
    except BrokenPipeError:
        # A reader such as `head` that has seen enough is no failure worth a message.
        streams.silence_stdout()
        return 128 + signal.SIGPIPE
    except OSError as error:
        streams.silence_stdout()
        return _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", words)
    except MemoryError as error:
        return _fail(f"this takes more memory than there is; ask for less ({error})", words)
    except KeyboardInterrupt:
        print("megatron-nca: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def make_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of the whole command line.

    Args:
        words: Words of the command line: where they begin with a command, that one alone is imported.
    """
    parser = _Parser(
        prog="megatron-nca", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"megatron-nca {megatron_nca.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        module = f"megatron_nca.cli.commands.{name}"
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module).add_parser(subparsers)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and what may have been meant."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}{self._meant(message)}; see {self.prog} --help")

    def _meant(self, message: str) -> str:
        commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        parsers = [self, *(parser for choices in commands for parser in choices.values())]
        flags = [flag for parser in parsers for flag in parser._option_string_actions]
        # Python before 3.12 quotes the choices of an option, later ones do not.
        offered = re.findall(r"[\w-]+", message.partition("(choose from")[2])
        known = [*flags, *(name for choices in commands for name in choices), *offered]
        for word in re.findall(r"--[\w-]+|(?<=invalid choice: ')[^']+", message):
            near = difflib.get_close_matches(word, known, n=1)
            if near and near[0] != word:
                return f"; did you mean {near[0]}?"
        return ""


def _fail(message: str, words: Sequence[str]) -> int:
    """Tell what is wrong in one line, to machines too; a launch's words stand behind ``--``."""
    print(f"megatron-nca: error: {message}", file=sys.stderr)
    if "--json" in words[: words.index("--") if "--" in words else None]:
        with suppress(OSError):
            print_json({"error": message})
            sys.stdout.flush()
    return USAGE
