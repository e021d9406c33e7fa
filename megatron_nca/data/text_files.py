"""Looks at a tokenised text's files before Megatron does: what would crash in mid-run, or never end, is refused at once.

An index (``.idx``) is a header, the length (int32) and the place (int64) of every sequence, and where documents begin (int64).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from megatron_nca.errors import CurriculumError

HEADER = struct.Struct("<9sQBQQ")
"""Magic, version, data type, number of sequences, number of documents and one."""
MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 8, 7: 4, 8: 2}
"""Bytes of a token, by Megatron's codes of data types."""


Part = tuple[float, float]
"""Part of a text's sequences, as Megatron's split matrix has it: (begin, end) shares of 0 to 1."""


def check_texts(splits: Iterable[tuple[str, Part | None, Iterable[str]]]) -> None:
    """Refuse what Megatron would trip over in the texts of a run.

    Args:
        splits: Name, part and prefixes of each split; a split that has no part reads none.

    Raises:
        CurriculumError: A text is missing, damaged, or leaves a split nothing.
    """
    found: dict[str, int | None] = {}
    for name, part, prefixes in splits:
        for prefix in prefixes:
            if prefix not in found:
                found[prefix] = check_text(prefix)
            sequences = found[prefix]
            if sequences is not None and part is not None:
                check_split(prefix, sequences, part, name)


def is_here(prefix: str) -> bool:
    """Tell whether any file of a text is on this machine."""
    return any(Path(f"{prefix}{ending}").is_file() for ending in (".idx", ".bin"))


LOOKED_AT = 1 << 14
"""Sequences that are looked at, at an index's beginning and at its end."""
LARGEST = 1 << 60
"""Bound of a place: more bytes than a file has."""


def check_text(prefix: str) -> int | None:
    """Refuse a local text whose files are missing, damaged or cut short.

    Args:
        prefix: Prefix of the ``.bin`` and ``.idx``.

    Returns:
        How many sequences it holds; None where it is no local path, and so Megatron's to find.

    Raises:
        CurriculumError: The message names the file and this machine.
    """
    if "://" in prefix:
        return None
    paths = {ending: Path(f"{prefix}{ending}") for ending in (".idx", ".bin")}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise CurriculumError(
            f"data path: {prefix!r} has no file {missing[0]} on {socket.gethostname()}; give the prefix of a tokenised text, "
            "without its ending, at a place that every node sees"
        )
    return _check_index(prefix, paths[".idx"], paths[".bin"].stat().st_size)


def _check_index(prefix: str, path: Path, bin_size: int) -> int:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or head[:9] != MAGIC:
            raise _damaged(prefix, path, "is no index of a tokenised text")
        _, version, code, sequences, documents = HEADER.unpack(head)
        if version != VERSION or code not in ITEM_BYTES:
            raise _damaged(prefix, path, f"is of version {version} and data type {code}, which Megatron-Core does not read")
        least = HEADER.size + 12 * sequences + 8 * documents
        if size < least:
            raise _damaged(prefix, path, f"is cut short: {size:,} bytes, where {sequences:,} sequences take {least:,}")
        if not sequences:
            raise _damaged(prefix, path, "holds no sequence")
        for first in sorted({0, max(sequences - LOOKED_AT, 0)}):
            count = min(LOOKED_AT, sequences)
            file.seek(HEADER.size + 4 * first)
            lengths = np.frombuffer(file.read(4 * count), "<i4").astype(np.int64)
            file.seek(HEADER.size + 4 * sequences + 8 * first)
            places = np.frombuffer(file.read(8 * count), "<i8")
            if lengths.min() < 0 or places.min() < 0 or places.max() > LARGEST:
                raise _damaged(prefix, path, "has a sequence of a length or at a place that no file has")
            end = int((places + lengths * ITEM_BYTES[code]).max())
            if bin_size < end:
                text = path.with_suffix(".bin")
                raise _damaged(prefix, text, f"is cut short: {bin_size:,} bytes, where its index tells of {end:,}")
    if sequences <= LOOKED_AT and not lengths.any():
        # Megatron would count epochs without an end.
        raise _damaged(prefix, path, "holds no token")
    return int(sequences)


def _damaged(prefix: str, path: Path, what: str) -> CurriculumError:
    return CurriculumError(f"data path: {prefix!r}: {path} on {socket.gethostname()} {what}; copy or tokenise the text again")


def check_split(prefix: str, sequences: int, split: Part, name: str) -> None:
    """Refuse a part of a text that rounds to nothing, for which Megatron would count epochs without an end.

    Args:
        prefix: The text's.
        sequences: How many it holds.
        split: The part, as Megatron's split matrix has it.
        name: Name of the split.

    Raises:
        CurriculumError: No sequence is in it.
    """
    begin, end = (round(edge * float(sequences)) for edge in split)
    if begin == end:
        raise CurriculumError(
            f"data path: {prefix!r} holds {sequences:,} sequences, of which --split leaves {split[0]:.4g} to {split[1]:.4g}, "
            f"and so none, to the {name} split; give that split a larger part, none at all (as in 100,0,0), or data of its own"
        )
