"""The text: this machine's Python standard library, in a byte-level BPE of 512 ids, as Megatron's `.bin` and `.idx`.

Every Python has it, no download is needed, and it is real: English and code, written by hundreds of people.
"""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_nca.atomic_files import atomic_write

END_OF_DOCUMENT, PADDING = "<|endoftext|>", "<|padding|>"
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "pydoc_data", "lib2to3"}
"""Other people's packages, tests, and tables that a program wrote."""
LARGEST_FILE = 200_000
"""Bytes; a larger file is generated, or would be a tenth of the validation set."""
SPLIT = "92,8,0"
"""Shares of the documents for training, validation and test, as Megatron's `--split`."""


class ByteLevelBPE:
    """A trained tokenizer as Megatron-Core's GPTDataset takes it.

    Args:
        path: File of the `tokenizers` library.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self.library: Any = Tokenizer.from_file(str(path))
        self.vocab_size = int(self.library.get_vocab_size())
        self.eod = self.eos = self._id(END_OF_DOCUMENT)
        self.pad = self._id(PADDING)
        self.special_tokens_dict = {"eos_token": self.eod, "pad_token": self.pad}
        self.unique_identifiers = OrderedDict(class_=type(self).__name__, path=str(path))

    def _id(self, token: str) -> int:
        return int(self.library.token_to_id(token))

    def tokenize(self, text: str) -> list[int]:
        """Turn text into ids."""
        return list(self.library.encode(text).ids)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Turn ids back into text."""
        return str(self.library.decode(list(ids), skip_special_tokens=False))


def standard_library() -> list[str]:
    """Read the running Python's sources, in an order that mixes its packages and is the same everywhere."""
    library = Path(sysconfig.get_paths()["stdlib"])
    return read_sources(path for path in library.rglob("*.py") if not LEFT_OUT & set(path.relative_to(library).parts))


def read_sources(paths: Any) -> list[str]:
    """Read files of a sensible size, ordered by a hash of their names."""
    wanted = [path for path in paths if path.stat().st_size <= LARGEST_FILE]
    wanted.sort(key=lambda path: _hash(f"{path.parent.name}/{path.name}"))
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in wanted)
    return [text for text in texts if text.strip()]


def train_tokenizer(texts: Sequence[str], vocabulary: int, path: Path) -> None:
    """Train a byte-level BPE and write it, whole or not at all."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END_OF_DOCUMENT, PADDING], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    with atomic_write(path) as partial:
        tokenizer.save(str(partial))


def prepare(folder: Path, texts: Sequence[str], vocabulary: int = 512, tokenizer: Path | None = None) -> tuple[str, Path]:
    """Write a text as Megatron reads it, or find what an earlier start wrote.

    Args:
        folder: Where texts live, each under a name made of all that decides its files.
        texts: The documents; the last ones serve as validation.
        vocabulary: Ids of the tokenizer.
        tokenizer: Tokenizer to encode with; by default one is trained on the text.

    Returns:
        (prefix as `--data-path` takes it, file of the tokenizer).
    """
    import tokenizers

    decides = [vocabulary, tokenizers.__version__, str(tokenizer and tokenizer.parent.name), *texts]
    home = folder / _hash(json.dumps(decides))[:16]
    home.mkdir(parents=True, exist_ok=True)
    prefix, path = home / "text", tokenizer or home / "tokenizer.json"
    if not path.exists():
        train_tokenizer(texts, vocabulary, path)
    if not prefix.with_suffix(".idx").exists():
        _write_indexed(texts, ByteLevelBPE(path), prefix)
    return str(prefix), path


def _write_indexed(texts: Sequence[str], tokenizer: ByteLevelBPE, prefix: Path) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    # Left in reverse: the tokens get their name before the index does, without which Megatron reads nothing.
    with atomic_write(prefix.with_suffix(".idx")) as index, atomic_write(prefix.with_suffix(".bin")) as tokens:
        builder = IndexedDatasetBuilder(str(tokens), dtype=DType.optimal_dtype(tokenizer.vocab_size))
        for encoding in tokenizer.library.encode_batch(list(texts)):
            builder.add_item(torch.tensor([*encoding.ids, tokenizer.eod]))
            builder.end_document()
        builder.finalize(str(index))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
