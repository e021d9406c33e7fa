"""Keep one architecture's GPU code in a shared library, so that Transformer Engine's travels in parts of 64 MB.

CUDA code lies in containers ("fatbins"): a header with magic, version, its own size and that of what follows, then entries with
a header each that names kind (1 is PTX, source for later architectures) and architecture. A container is found by its address,
so it stays where it is: the entries that are kept move to its front, its size says where they end, and zeros fill the gap,
which compresses to nothing.

    python -m benchmarks.hopper.shrink LIBRARY OUTPUT 90
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

MAGIC = 0xBA55ED50
HEADER = struct.Struct("<IHHQ")
ENTRY = struct.Struct("<HHIQ")
PTX = 1
KINDS = (1, 2, 4, 8, 16, 32, 64)
ARCHITECTURE_AT = 28


def shrink(data: bytes, architecture: int) -> bytes:
    """Return the library with the code of one architecture.

    Args:
        data: The library.
        architecture: Such as 90.
    """
    result = bytearray(data)
    for start, size in _containers(data):
        begin, end = start + HEADER.size, start + HEADER.size + size
        kept = b"".join(entry for kind, own, entry in _entries(data, begin, end) if kind != PTX and own == architecture)
        if kept:
            HEADER.pack_into(result, start, MAGIC, 1, HEADER.size, len(kept))
            result[begin:end] = kept + bytes(size - len(kept))
    return bytes(result)


def _containers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where containers begin, and the size of what follows their headers."""
    magic, at = struct.pack("<I", MAGIC), 0
    while (at := data.find(magic, at)) >= 0:
        _, version, header, size = HEADER.unpack_from(data, at) if at + HEADER.size <= len(data) else (0, 0, 0, 0)
        if version == 1 and header == HEADER.size and at + header + size <= len(data):
            yield at, size
            at += header + size
        else:
            at += len(magic)


def _entries(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield kind, architecture and bytes of the entries of a container."""
    while begin < end:
        kind, _, header, size = ENTRY.unpack_from(data, begin)
        if kind not in KINDS or not 32 <= header <= 4096:
            return
        (architecture,) = struct.unpack_from("<I", data, begin + ARCHITECTURE_AT)
        yield kind, architecture, data[begin : begin + header + size]
        begin += header + size


if __name__ == "__main__":
    library, output, architecture = sys.argv[1:]
    Path(output).write_bytes(shrink(Path(library).read_bytes(), int(architecture)))
