import struct

from benchmarks.hopper.shrink import MAGIC, shrink


def entry(kind, architecture, body):
    header = bytearray(64)
    struct.pack_into("<HHIQ", header, 0, kind, 0, len(header), len(body))
    struct.pack_into("<I", header, 28, architecture)
    return bytes(header) + body


def container(*entries):
    body = b"".join(entries)
    return struct.pack("<IHHQ", MAGIC, 1, 16, len(body)) + body


def test_one_architecture_s_code_is_kept_and_everything_stays_where_it_is():
    wanted, other, source = entry(2, 90, b"hopper" * 9), entry(2, 80, b"ampere" * 9), entry(1, 90, b"ptx" * 9)
    first, second = container(other, wanted, source), container(wanted)
    library = b"\x7fELF before" + first + b"between" + second + b"after"
    shrunk = shrink(library, 90)
    assert len(shrunk) == len(library)
    at = library.index(first)
    _, _, _, size = struct.unpack_from("<IHHQ", shrunk, at)
    assert shrunk[at + 16 : at + 16 + size] == wanted
    assert not shrunk[at + 16 + size : at + len(first)].strip(b"\0")
    assert shrunk[at + len(first) :] == library[at + len(first) :]


def test_a_container_without_the_architecture_is_left_as_it_is():
    library = container(entry(2, 80, b"ampere"))
    assert shrink(library, 90) == library


def test_bytes_that_only_look_like_a_container_are_left_alone():
    library = struct.pack("<IHHQ", MAGIC, 7, 16, 4) + b"data" + struct.pack("<I", MAGIC)
    assert shrink(library, 90) == library
