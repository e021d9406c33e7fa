"""A run that stops itself at an iteration and waits there to be killed.

Whoever watches a log from outside may be late, on a busy machine by whole iterations. A rank whose environment has
`MEGATRON_NCA_HOLD_AT` sleeps for good once it has logged that iteration, and one with `MEGATRON_NCA_HOLD_SAVED` once it has
logged that iteration's checkpoint as saved; the other ranks wait for it at their next collective. `MEGATRON_NCA_HOLD_SECONDS`
makes it go on after so many seconds.
"""

import os
import re
import signal
import sys
import time

VARIABLE = "MEGATRON_NCA_HOLD_AT"
SAVED_VARIABLE = "MEGATRON_NCA_HOLD_SAVED"
SECONDS_VARIABLE = "MEGATRON_NCA_HOLD_SECONDS"


def install_holds() -> None:
    """ProgressMonitor this process's output for the iteration that the environment names, if it names one."""
    if iteration := os.environ.get(VARIABLE):
        _hold_after(re.compile(rf"iteration +{int(iteration)}/"))
    if iteration := os.environ.get(SAVED_VARIABLE):
        _hold_after(saved_line(int(iteration)))


def saved_line(iteration: int) -> re.Pattern[str]:
    """Return what Megatron-LM's first rank prints when the checkpoint of an iteration is complete."""
    return re.compile(rf"successfully saved checkpoint from iteration +{iteration}\b")


def _hold_after(line: re.Pattern[str]) -> None:
    write = sys.stdout.write
    logged = False

    def write_and_hold(text: str) -> int:
        nonlocal logged
        written = write(text)
        logged = logged or line.search(text) is not None
        # The end of the line may be written apart.
        if logged and text.endswith("\n"):
            sys.stdout.flush()
            _sleep()
            sys.stdout.write = write  # type: ignore[method-assign]
        return written

    sys.stdout.write = write_and_hold  # type: ignore[method-assign]


def _sleep() -> None:
    if seconds := os.environ.get(SECONDS_VARIABLE):
        time.sleep(float(seconds))
        return
    while True:
        signal.pause()
