"""A run that stops itself at an iteration and waits there to be killed.

Whoever watches a log from outside may be late, on a busy machine by whole iterations. A rank whose environment has
`MEGATRON_NCA_HOLD_AT` sleeps for good once it has logged that iteration; the other ranks wait for it at their next collective.
"""

import os
import re
import signal
import sys

VARIABLE = "MEGATRON_NCA_HOLD_AT"


def hold_where_told() -> None:
    """Watch this process's output for the iteration that the environment names, if it names one."""
    if iteration := os.environ.get(VARIABLE):
        _hold_at(int(iteration))


def _hold_at(iteration: int) -> None:
    write, line = sys.stdout.write, re.compile(rf"iteration +{iteration}/")
    logged = False

    def write_and_hold(text: str) -> int:
        nonlocal logged
        written = write(text)
        logged = logged or line.search(text) is not None
        # The end of the line may be written apart.
        if logged and text.endswith("\n"):
            sys.stdout.flush()
            _sleep_for_good()
        return written

    sys.stdout.write = write_and_hold  # type: ignore[method-assign]


def _sleep_for_good() -> None:
    while True:
        signal.pause()
