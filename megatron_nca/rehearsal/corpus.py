"""A text as Megatron-Core's indexed dataset, small enough to make in a test."""

from collections.abc import Iterable
from pathlib import Path

END_OF_DOCUMENT = 255


def write_corpus(prefix: Path, documents: Iterable[bytes]) -> Path:
    """Write documents, a byte a token, each ended by token 255.

    Args:
        prefix: What `--data-path` will name: the `.bin` and `.idx` files without their ends.
        documents: The documents.

    Returns:
        The prefix.
    """
    import numpy
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder, get_bin_path, get_idx_path

    prefix.parent.mkdir(parents=True, exist_ok=True)
    builder = IndexedDatasetBuilder(get_bin_path(str(prefix)), dtype=numpy.uint16)
    for document in documents:
        tokens = torch.tensor([*document, END_OF_DOCUMENT])
        builder.add_document(tokens, [len(tokens)])
    builder.finalize(get_idx_path(str(prefix)))
    return prefix
