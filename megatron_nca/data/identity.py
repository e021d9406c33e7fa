"""What samples are made from, in a form that a record keeps and a person can compare.

A text is told by its index: the size of the file and three blocks of it, so that a folder may move and a text may not change.
NCA's tokens are told by the ids that they are mapped on, the end-of-document id and the first samples.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_nca.data.entry import NCAEntry
from megatron_nca.data.vocabulary import end_of_document, token_ids

BLOCK = 1 << 16
"""Bytes read of a text's index at its beginning, in its middle and at its end."""

SHOWN_DIGITS = 12
HEADER = struct.Struct("<9sQBQQ")
"""Megatron's index file: magic, version, data type, number of sequences, number of documents."""


def text_identity(prefix: str) -> str:
    """Return what tells a tokenised text from another: how many sequences and documents it has, and a digest of its index.

    Args:
        prefix: Prefix of the ``.bin`` and ``.idx``.

    Returns:
        The identity; an empty string where the index is not a local file, as in an object store.
    """
    path = Path(f"{prefix}.idx")
    try:
        size = os.path.getsize(path)
        with path.open("rb") as file:
            blocks = []
            for begin in sorted({0, max(size // 2 - BLOCK // 2, 0), max(size - BLOCK, 0)}):
                file.seek(begin)
                blocks.append(file.read(BLOCK))
    except OSError:
        return ""
    digest = hashlib.sha256(b"|".join([str(size).encode(), *blocks])).hexdigest()[:SHOWN_DIGITS]
    if len(blocks[0]) < HEADER.size:
        return f"index {digest}"
    _, _, _, sequences, documents = HEADER.unpack(blocks[0][: HEADER.size])
    return f"{sequences:,} sequences, {max(documents - 1, 0):,} documents, index {digest}"


def tokens_identity(
    entries: Sequence[NCAEntry], samples: str, tokenizer: Any, padded_vocab_size: int | None = None
) -> str | None:
    """Return what tells a mapping of NCA's tokens, and the samples themselves, from another.

    Args:
        entries: The ``nca:`` entries of training.
        samples: Fingerprint of their first samples.
        tokenizer: Megatron's tokenizer.
        padded_vocab_size: Rows of the model's embedding where known.

    Returns:
        The identity, or None without entries.
    """
    if not entries:
        return None
    digest = hashlib.sha256(samples.encode())
    shown = []
    for entry in entries:
        ids = token_ids(entry, tokenizer, padded_vocab_size)
        digest.update(ids.astype("<i8").tobytes())
        shown.append(f"{len(ids):,} ids from {ids[0]:,} to {ids[-1]:,}")
    eod = end_of_document(tokenizer)
    digest.update(str(eod).encode())
    return f"{', '.join(dict.fromkeys(shown))}, end of document {eod}, digest {digest.hexdigest()[:SHOWN_DIGITS]}"
