"""Worker processes that end with the one that started them, also where that one is killed, and leave Ctrl-C to it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from megatron_nca.errors import NCAError

T = TypeVar("T")

CONTEXT = multiprocessing.get_context("spawn")
"""Spawned: torch, where it is loaded, has threads that a fork would not bring along."""

PR_SET_PDEATHSIG = 1
"""Operation of Linux's ``prctl``: sets the signal that a process gets when its parent ends."""


def each(
    processes: int, begin: Callable[..., object], arguments: tuple[Any, ...], work: Callable[..., T], tasks: Any
) -> Iterator[T]:
    """Do tasks in worker processes, which end when the last result was taken or nobody takes another.

    Args:
        processes: How many.
        begin: Called in each before its first task.
        arguments: Its arguments.
        work: Called with each task, a function of a module.
        tasks: What it is called with, each a single argument.

    Yields:
        Results, as they are done.

    Raises:
        NCAError: A worker was killed, as by a system that has run out of memory.
    """
    executor = ProcessPoolExecutor(processes, CONTEXT, _begin, (begin, arguments))
    try:
        with _ignoring_interrupts():
            waiting = [executor.submit(work, task) for task in tasks]
        for done in as_completed(waiting):
            yield done.result()
    except BrokenProcessPool as error:
        raise NCAError(
            "a worker process was killed, as by a system that has run out of memory; give fewer processes"
        ) from error
    finally:
        _end(executor)


def _end(executor: ProcessPoolExecutor) -> None:
    """End an executor's processes, in the middle of their work if need be."""
    for process in list((executor._processes or {}).values()):
        process.terminate()
    executor.shutdown(wait=True, cancel_futures=True)


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
