"""The streams of the command line, which a shell may have closed, and whose reader may have gone."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from megatron_nca.cli.common import UsageError


def prepare() -> None:
    """Let every name be printed, also one that is no UTF-8, and refuse to work for nobody.

    Raises:
        UsageError: Standard output is closed.
    """
    sys.stderr = sys.stderr or _nowhere()
    if sys.stdout is None:
        sys.stdout = _nowhere()
        raise UsageError("standard output is closed; send it to /dev/null to have the exit code alone")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    # Takes the closed one's number, which the next file that is opened would get, and with it what is printed.
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def silence_stdout() -> None:
    """Send what is still to be written nowhere: Python flushes stdout once more at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
