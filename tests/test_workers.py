"""Workers: what is done in them comes back, a killed one is an error, and none is left over."""

import os
import signal
import time
from typing import Any

import psutil
import pytest

from megatron_nca import workers
from megatron_nca.errors import NCAError

kept = None


def keep(value):
    global kept
    kept = value


def add(number):
    return kept + number


def be_killed(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return number


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def left_over():
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_every_task_is_done_once_with_what_was_kept():
    assert sorted(workers.each(2, keep, (100,), add, range(20))) == list(range(100, 120))
    assert left_over() == []


def test_a_killed_worker_is_an_error_and_no_endless_wait():
    with pytest.raises(NCAError, match="a worker process was killed"):
        list(workers.each(2, keep, (0,), be_killed, range(8)))
    assert left_over() == []


def test_an_error_of_a_task_is_raised_and_the_others_are_ended():
    begin = time.monotonic()
    with pytest.raises(TypeError):
        list(workers.each(2, keep, (0,), sleep, ["no number", 60, 60]))
    assert time.monotonic() - begin < 30
    assert left_over() == []


def test_workers_end_when_nobody_takes_another_result():
    results: Any = workers.each(2, keep, (0,), sleep, [0, 60, 60])
    assert next(results) == 0
    results.close()
    assert left_over() == []
