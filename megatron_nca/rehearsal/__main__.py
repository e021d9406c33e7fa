"""`python -m megatron_nca.rehearsal [MODE] SCRIPT ARGS...`: run a training script with the CPU standing in for the GPU.

Without a mode this is `python -m megatron_nca SCRIPT ARGS...` on the stand-in.

| mode | |
|---|---|
| `--plain` | SCRIPT runs without the plugin |
| `--audited` | each rank checks its tensors at the switch; see `audit` |
| `--arguments-only` | SCRIPT ends when its ranks would meet; see `arguments_only` |
| `--config-only` | the same for a script of Megatron-Bridge's; see `bridge.process` |
"""

import os
import runpy
import sys

from megatron_nca.rehearsal import install
from megatron_nca.rehearsal.ending import end_with_parent
from megatron_nca.rehearsal.holding import install_holds

# A process that Megatron-Core spawns imports this file again, and not what follows its last line.
end_with_parent()

MODES = ("--plain", "--audited", "--arguments-only", "--config-only")
SCALED = "MEGATRON_NCA_SCALED"
"""Variable of `bridge.process`, which imports more than most scripts need."""

USAGE = f"usage: python -m megatron_nca.rehearsal [{' | '.join(MODES)}] SCRIPT ARGS..."


def main(argv: list[str]) -> None:
    """Install the stand-in and run a script.

    Args:
        argv: `[MODE] SCRIPT ARGS...`.
    """
    mode = argv[0] if argv and argv[0] in MODES else None
    command = argv if mode is None else argv[1:]
    if not command or command[0].startswith("-"):
        sys.exit(USAGE)

    install_holds()
    install()
    if os.environ.get(SCALED):
        from megatron_nca.rehearsal.bridge import process

        process.install_scaling()
    if mode == "--plain":
        run_script(command)
    else:
        _prepare(mode)
        from megatron_nca.__main__ import main as run_with_plugin

        run_with_plugin(command)


def _prepare(mode: str | None) -> None:
    if mode == "--audited":
        from megatron_nca.rehearsal import audit

        audit.install()
    elif mode == "--arguments-only":
        from megatron_nca.rehearsal import arguments_only

        arguments_only.install()
    elif mode == "--config-only":
        from megatron_nca.rehearsal.bridge import process

        process.install_reading()


def run_script(command: list[str]) -> None:
    """Run a script as `python SCRIPT ARGS...` would: as `__main__`, with its folder first on the path.

    Args:
        command: `SCRIPT ARGS...`.
    """
    script = command[0]
    sys.argv = command
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
