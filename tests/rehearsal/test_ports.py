import socket

import pytest

from megatron_nca.rehearsal import ports


def test_ports_are_different_and_nobody_listens_there():
    found = ports.free_ports(50)
    assert len(set(found)) == 50
    for port in found:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_port_that_is_taken_is_passed_over(monkeypatch):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        taken = listening.getsockname()[1]
        monkeypatch.setattr(ports, "PORTS", range(taken, taken + 1))
        with pytest.raises(OSError, match="fewer than 1 of the ports"):
            ports.free_ports(1)
