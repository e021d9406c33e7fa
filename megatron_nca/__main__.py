"""``python -m megatron_nca SCRIPT ARGS...``: register the plugin, then run SCRIPT as if Python had been given it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import megatron_nca

USAGE = "usage: python -m megatron_nca SCRIPT [ARGS...]\n\nRegisters the nca: data path entry and runs SCRIPT."


def main(argv: list[str]) -> None:
    """Register, then run a script as ``__main__`` with its own folder first on the path.

    Args:
        argv: The script and its arguments.

    Raises:
        SystemExit: No script is named, or there is none at its place.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if argv else 2)
    script = Path(argv[0])
    if not script.is_file():
        raise SystemExit(f"python -m megatron_nca: no script at {argv[0]!r}")
    sys.argv = list(argv)
    sys.path.insert(0, str(script.resolve().parent))
    megatron_nca.register()
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
