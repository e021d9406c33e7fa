"""Streams and events of a device on which work is done by the time the call that asked for it returns."""

import time
from typing import Any

import torch

from megatron_nca.rehearsal.stand_in.replacing import replace

_NANOSECONDS_A_MILLISECOND = 1e6


class Event:
    """`torch.cuda.Event`: remembers when it was recorded."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self._recorded_at = time.perf_counter_ns()

    def record(self, stream: Any = None) -> None:
        """Note the time."""
        self._recorded_at = time.perf_counter_ns()

    def elapsed_time(self, end_event: "Event") -> float:
        """Milliseconds from this event to another."""
        return (end_event._recorded_at - self._recorded_at) / _NANOSECONDS_A_MILLISECOND

    def query(self) -> bool:
        """All work is done."""
        return True

    def wait(self, stream: Any = None) -> None:
        """Nothing is outstanding."""

    def synchronize(self) -> None:
        """Nothing is outstanding."""


class Stream:
    """`torch.cuda.Stream`: a name for an order that all work has anyway."""

    def __init__(self, device: Any = None, priority: int = 0, **kwargs: Any) -> None:
        self.device = torch.device("cpu")
        self.priority = priority
        self.cuda_stream = id(self)

    @staticmethod
    def priority_range() -> tuple[int, int]:
        """Return the least and the greatest priority."""
        return (0, 0)

    def record_event(self, event: Event | None = None) -> Event:
        """Record an event, a new one if none is given, and return it."""
        event = event or Event()
        event.record(self)
        return event

    def query(self) -> bool:
        """All work is done."""
        return True

    def wait_event(self, event: Event) -> None:
        """Nothing is outstanding."""

    def wait_stream(self, stream: "Stream") -> None:
        """Nothing is outstanding."""

    def synchronize(self) -> None:
        """Nothing is outstanding."""

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exception: Any) -> None:
        pass


class Context:
    """`torch.cuda.stream(...)` and `torch.cuda.device(...)`: there is one place for work to go."""

    def __init__(self, target: Any = None) -> None:
        self.target = target

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *exception: Any) -> None:
        pass


_DEFAULT_STREAM = Stream()


def install() -> None:
    """Replace streams, events and the contexts that choose a stream or a device."""
    replace(torch.cuda, Stream=Stream, ExternalStream=Stream, Event=Event)
    replace(torch.cuda, stream=Context, StreamContext=Context, device=Context, device_of=Context)
    replace(torch.cuda, current_stream=_default_stream, default_stream=_default_stream)
    replace(torch.cuda, set_stream=_nothing, synchronize=_nothing)


def _default_stream(device: Any = None) -> Stream:
    return _DEFAULT_STREAM


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass
