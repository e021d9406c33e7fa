"""Worker processes that end with the one that started them, also where that one is killed, and leave Ctrl-C to it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")
"""Spawned: torch, where it is loaded, has threads that a fork would not bring along."""

PR_SET_PDEATHSIG = 1
"""Operation of Linux's ``prctl``: sets the signal that a process gets when its parent ends."""


@contextmanager
def pool(processes: int, begin: Callable[..., object], arguments: tuple[Any, ...]) -> Iterator[Any]:
    """Start workers, and end them when the block is left, however that is.

    Args:
        processes: How many.
        begin: Called in each before its first task.
        arguments: Its arguments.

    Yields:
        The pool.
    """
    with _ignoring_interrupts():
        made = CONTEXT.Pool(processes, _begin, (begin, arguments))
    with made:
        yield made


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Let processes that are started here never hear Ctrl-C, which the terminal sends to all, lest each has a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(begin: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    end_with(None if parent is None else parent.pid)
    begin(*arguments)


def end_with(parent: int | None) -> None:
    """Have Linux kill this process when its parent ends.

    Args:
        parent: The parent's process id as it was when this process was started.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        # It ended in between, and nobody would tell.
        os.kill(os.getpid(), signal.SIGKILL)
