"""The text on disk: tokenizer and Megatron's `.bin`/`.idx`, in a folder named by a fingerprint of all that they are made of.

Another Python, vocabulary or version of the `tokenizers` library is another fingerprint and so another folder. Inside it every
file appears whole, and `.idx`, without which Megatron reads nothing, appears last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.quickstart.corpus import Document, read_documents
from examples.quickstart.files import replacing
from examples.quickstart.tokenizer import ByteLevelBPE, train_tokenizer

FORMAT = 1
"""Changes when the same documents would be written as other files."""

SPLIT = "92,8,0"
"""Shares of the documents for training, validation and test, as Megatron's `--split`."""


@dataclass(frozen=True)
class Text:
    """Text that is ready to train on.

    Attributes:
        fingerprint: Of the documents and of how they were written.
        prefix: Path of `.bin` and `.idx` without their endings, as `--data-path` takes it.
        tokenizer: Its tokenizer.
    """

    fingerprint: str
    prefix: str
    tokenizer: ByteLevelBPE


def prepare_text(folder: Path, vocab_size: int, documents: Sequence[Document] | None = None) -> Text:
    """Train the tokenizer and write the text, or take what an earlier run finished.

    Args:
        folder: Where texts live, each in a folder of its own.
        vocab_size: Ids of the tokenizer.
        documents: The text, by default the standard library's sources.

    Returns:
        The text.
    """
    documents = read_documents() if documents is None else documents
    fingerprint = fingerprint_of(documents, vocab_size)
    home = folder / fingerprint
    tokenizer_path, prefix = home / "tokenizer.json", home / "text"
    if not tokenizer_path.exists():
        train_tokenizer([document.text for document in documents], vocab_size, tokenizer_path)
    tokenizer = ByteLevelBPE(tokenizer_path)
    if not prefix.with_suffix(".idx").exists():
        _write_indexed(documents, tokenizer, prefix)
    return Text(fingerprint, str(prefix), tokenizer)


def fingerprint_of(documents: Sequence[Document], vocab_size: int) -> str:
    """Hash everything that the written files depend on."""
    import tokenizers

    digest = hashlib.sha256(json.dumps([FORMAT, vocab_size, tokenizers.__version__]).encode())
    for document in documents:
        for part in (document.name, document.text):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:16]


def _write_indexed(documents: Sequence[Document], tokenizer: ByteLevelBPE, prefix: Path) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    # Left in reverse: the data gets its name before the index does.
    with replacing(prefix.with_suffix(".idx")) as index, replacing(prefix.with_suffix(".bin")) as data:
        builder = IndexedDatasetBuilder(str(data), dtype=DType.optimal_dtype(tokenizer.vocab_size))
        for ids in tokenizer.tokenize_many([document.text for document in documents]):
            builder.add_item(torch.tensor([*ids, tokenizer.eod]))
            builder.end_document()
        builder.finalize(str(index))
