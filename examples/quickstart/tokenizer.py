"""A byte-level BPE of one's own, and the interface that Megatron-Core's GPTDataset expects of a tokenizer."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.quickstart.files import replacing

END_OF_DOCUMENT = "<|endoftext|>"
PADDING = "<|padding|>"


class ByteLevelBPE:
    """A trained tokenizer as Megatron-Core takes it.

    Args:
        path: File that `train_tokenizer` wrote.

    Attributes:
        eod: Id that ends a document.
        pad: Id that fills up a sequence; not `eod`, so that GPTDataset can tell them apart.
        unique_identifiers: What GPTDataset's index files are keyed by.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        # Set at all, it silences a warning that the library prints when a data loader forks.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self.library: Any = Tokenizer.from_file(str(path))
        self.eod: int = self.library.token_to_id(END_OF_DOCUMENT)
        self.eos = self.eod
        self.pad: int = self.library.token_to_id(PADDING)
        self.unique_identifiers = OrderedDict(class_=type(self).__name__, path=str(path))

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return int(self.library.get_vocab_size())

    @property
    def special_tokens_dict(self) -> dict[str, int]:
        """Ids of the special tokens, by role."""
        return {"eos_token": self.eod, "pad_token": self.pad}

    def tokenize(self, text: str) -> list[int]:
        """Turn text into ids."""
        return list(self.library.encode(text).ids)

    def tokenize_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn several texts into ids, on all cores."""
        return [encoding.ids for encoding in self.library.encode_batch(list(texts))]

    def detokenize(self, ids: Sequence[int]) -> str:
        """Turn ids back into text."""
        return str(self.library.decode(list(ids), skip_special_tokens=False))


def train_tokenizer(texts: Sequence[str], vocab_size: int, path: Path) -> None:
    """Train a byte-level BPE and write it; nothing is left behind if that is interrupted.

    Args:
        texts: What to train on.
        vocab_size: Ids wanted, special tokens included.
        path: JSON file to write.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    with replacing(path) as partial:
        tokenizer.save(str(partial))
