"""``python -m megatron_nca SCRIPT ARGS...``: register the plugin, then run SCRIPT as if Python had been given it."""

from __future__ import annotations

import functools
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import megatron_nca
from megatron_nca import refusing
from megatron_nca.training import early

USAGE = "usage: python -m megatron_nca SCRIPT [ARGS...]\n\nRegisters the nca: data path entry and runs SCRIPT."


def main(argv: list[str]) -> None:
    """Register, then run a script as ``__main__`` with its own folder first on the path.

    Args:
        argv: The script and its arguments.

    Raises:
        SystemExit: No script is named, or there is none at its place.
        NCAError: The arguments alone decide that the launch cannot be served.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if argv else 2)
    script = Path(argv[0])
    if not script.is_file():
        raise SystemExit(f"python -m megatron_nca: no script at {argv[0]!r}{_command_line(argv[0])}")
    sys.argv = list(argv)
    sys.path.insert(0, str(script.resolve().parent))
    refusing.install()
    if early.is_megatron_lm(script):
        early.refuse_early(argv[1:])
    megatron_nca.register()
    _go_along(script)
    runpy.run_path(str(script), run_name="__main__")


def _command_line(word: str) -> str:
    """Name the command line where somebody looks for one of its commands here."""
    from megatron_nca.cli.main import COMMANDS

    return f"; the command line is: megatron-nca {word}, or python -m megatron_nca.cli {word}" if word in COMMANDS else ""


def _go_along(script: Path) -> None:
    """Let a script that starts itself anew, as Megatron-Bridge's run_recipe.py does, take the plugin along."""
    from megatron_nca.frameworks import seams

    wrapper = functools.partial(_with_plugin, script)
    seams.install(seams.PYTHON, {"execv": wrapper, "execve": wrapper})


def _with_plugin(script: Path, execute: Callable[..., object]) -> Callable[..., object]:
    def execute_with_plugin(path: str, argv: Sequence[str], *environment: object) -> object:
        starts_itself = len(argv) > 1 and argv[0] == sys.executable and Path(argv[1]).resolve() == script.resolve()
        launcher = ["-m", "megatron_nca"] if starts_itself else []
        return execute(path, [*argv[:1], *launcher, *argv[1:]], *environment)

    return execute_with_plugin


if __name__ == "__main__":
    main(sys.argv[1:])
