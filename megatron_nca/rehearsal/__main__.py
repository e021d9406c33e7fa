"""`python -m megatron_nca.rehearsal [--plain] SCRIPT ARGS...`: run a training script with the CPU standing in for the GPU.

Without `--plain` this is `python -m megatron_nca SCRIPT ARGS...` on the stand-in; with it, SCRIPT runs without the plugin.
"""

import os
import runpy
import sys

from megatron_nca.rehearsal import install
from megatron_nca.rehearsal.ending import end_with_parent
from megatron_nca.rehearsal.holding import hold_where_told

# A process that Megatron-Core spawns imports this file again, and not what follows its last line.
end_with_parent()

USAGE = "usage: python -m megatron_nca.rehearsal [--plain] SCRIPT ARGS..."


def main(argv: list[str]) -> None:
    """Install the stand-in and run a script.

    Args:
        argv (list[str]): `[--plain] SCRIPT ARGS...`
    """
    plain = argv[:1] == ["--plain"]
    command = argv[1:] if plain else argv
    if not command or command[0].startswith("-"):
        sys.exit(USAGE)

    hold_where_told()
    install()
    if plain:
        run_script(command)
    else:
        from megatron_nca.__main__ import main as run_with_plugin

        run_with_plugin(command)


def run_script(command: list[str]) -> None:
    """Run a script as `python SCRIPT ARGS...` would: as `__main__`, with its folder first on the path.

    Args:
        command (list[str]): `SCRIPT ARGS...`
    """
    script = command[0]
    sys.argv = command
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
