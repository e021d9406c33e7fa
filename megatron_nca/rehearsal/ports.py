"""Ports at which the processes of a run on this machine meet."""

import contextlib
import random
import socket

PORTS = range(15_000, 32_000)
"""Ports below those that Linux gives to outgoing connections: one of theirs may be free when asked for and taken soon after."""


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on.

    Args:
        count: How many.

    Returns:
        Different ones, by chance, so that runs that start at the same moment hardly ever choose the same.

    Raises:
        OSError: If there are not as many.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(found) == count:
            return found
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    raise OSError(f"fewer than {count} of the ports {PORTS.start} to {PORTS.stop - 1} are free on this machine")
