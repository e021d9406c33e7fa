"""An offline corpus as Megatron's ``.bin`` and ``.idx``: written in parts, by several processes, resumable.

Every document has one length, so a part's place in the ``.bin`` follows from its number, and processes write into one file

    offset of part p = p * DOCUMENTS_A_PART * document_length * bytes a token

in any order. A part is noted in the journal once it is on disk; whatever is not noted is written again. Both files get their
names at the end, the ``.idx`` last, so a corpus that Megatron can open is a whole one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from megatron_nca import workers
from megatron_nca.automaton.source import STREAM_VERSION, NCASource
from megatron_nca.data.layout import SampleLayout
from megatron_nca.errors import CorpusError

TOKENS_A_PART = 2**19
SMALL_VOCABULARY = 65_500
"""Vocabulary size below which Megatron stores a token in two bytes (``DType.optimal_dtype``)."""


@dataclass(frozen=True)
class Corpus:
    """What is to be written.

    Attributes:
        prefix: Prefix of the ``.bin`` and ``.idx``.
        source: Makes the trajectories; document ``i`` is trajectory ``i``.
        ids: The tokenizer's id of each of the process's tokens, int64 (config.vocab_size,).
        eod: Id that ends a packed document.
        layout: Gives the length of a document; has no extra token, since the next document gives the last label.
        documents: How many.
        vocab_size: Vocabulary size of the tokenizer; decides the bytes of a token.
    """

    prefix: Path
    source: NCASource
    ids: npt.NDArray[np.int64]
    eod: int
    layout: SampleLayout
    documents: int
    vocab_size: int

    @property
    def bin(self) -> Path:
        """The tokens."""
        return self._beside(".bin")

    @property
    def idx(self) -> Path:
        """The index."""
        return self._beside(".idx")

    @property
    def journal(self) -> Path:
        """What has been written so far; there while the corpus is unfinished."""
        return self._beside(".building")

    @property
    def partial(self) -> Path:
        """The tokens while they are written."""
        return self._beside(".bin.partial")

    def _beside(self, ending: str) -> Path:
        return self.prefix.with_name(self.prefix.name + ending)

    @property
    def dtype(self) -> type[np.generic]:
        """Type of a stored token."""
        return np.uint16 if self.vocab_size < SMALL_VOCABULARY else np.int32

    @property
    def size(self) -> int:
        """Bytes of the ``.bin``."""
        return self.documents * self.layout.document_length * np.dtype(self.dtype).itemsize

    @property
    def documents_a_part(self) -> int:
        """Documents that are written and noted together."""
        return max(TOKENS_A_PART // self.layout.document_length, 1)

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-self.documents // self.documents_a_part)

    def part(self, number: int) -> range:
        """Return the documents of a part."""
        begin = number * self.documents_a_part
        return range(begin, min(begin + self.documents_a_part, self.documents))

    def tokens_of(self, number: int) -> int:
        """Return how many tokens a part has."""
        return len(self.part(number)) * self.layout.document_length

    def description(self) -> dict[str, Any]:
        """Return everything that decides a byte of the files."""
        source = self.source
        return {
            "stream": STREAM_VERSION, "kind": type(source).__name__,
            "process": source.config.to_uri(), "rules": source.rules, "seed": source.seed,
            "split": source.split, "layout": asdict(self.layout), "documents": self.documents, "eod": self.eod,
            "vocab_size": self.vocab_size, "ids": hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest(),
            "documents_a_part": self.documents_a_part,
        }  # fmt: skip


def write_corpus(corpus: Corpus, processes: int, advance: Callable[[int], None] = lambda _: None) -> None:
    """Write a corpus, or finish one whose writing was interrupted.

    Args:
        corpus: What.
        processes: How many make trajectories.
        advance: Called with the tokens of each part that is on disk, those of an earlier start included.

    Raises:
        CorpusError: The files are there already, another process writes them, or an earlier start was for another corpus.
    """
    with _journal(corpus) as (journal, done):
        for number in done:
            advance(corpus.tokens_of(number))
        _make_room(corpus)
        left = [number for number in range(corpus.parts) if number not in done]
        for number in _written(corpus, left, processes):
            # Unbuffered and synced, so that a note never outlives what it notes.
            journal.write(f"{number}\n".encode())
            os.fsync(journal.fileno())
            advance(corpus.tokens_of(number))
        _finish(corpus)


@contextlib.contextmanager
def _journal(corpus: Corpus) -> Iterator[tuple[IO[bytes], set[int]]]:
    """Open the journal for one writer; yield it and the parts that are done."""
    if corpus.idx.exists() or (corpus.bin.exists() and not corpus.journal.exists()):
        raise CorpusError(f"{corpus.idx} or .bin is there already; remove it, or give another --output")
    with open(corpus.journal, "a+b", buffering=0) as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CorpusError(f"{corpus.journal}: another process is building this corpus; wait for it") from None
        yield journal, _resume(corpus, journal)


def _resume(corpus: Corpus, journal: IO[bytes]) -> set[int]:
    journal.seek(0)
    stored = journal.read()
    # A kill can cut the last line short.
    complete = stored[: stored.rfind(b"\n") + 1]
    journal.truncate(len(complete))
    lines = complete.decode("ascii", errors="replace").splitlines()
    header = json.dumps(corpus.description())
    if not lines or not (corpus.partial.exists() or corpus.bin.exists()):
        journal.truncate(0)
        journal.write(f"{header}\n".encode())
        os.fsync(journal.fileno())
        return set()
    if lines[0] != header:
        raise CorpusError(
            f"{corpus.journal}: an unfinished corpus of other settings is there:\n  there: {lines[0]}\n  now:   {header}\n"
            f"give the same settings to finish it, or remove {corpus.journal} and {corpus.partial}"
        )
    parts = set(map(str, range(corpus.parts)))
    strange = [line for line in lines[1:] if line not in parts]
    if strange:
        raise CorpusError(
            f"{corpus.journal}: {strange[0][:40]!r} is none of its {corpus.parts:,} parts, so something else wrote it; "
            f"remove {corpus.journal} and {corpus.partial}"
        )
    return {int(line) for line in lines[1:]}


def _make_room(corpus: Corpus) -> None:
    if corpus.bin.exists():
        return
    with open(corpus.partial, "ab") as file:
        file.truncate(corpus.size)


def _written(corpus: Corpus, numbers: list[int], processes: int) -> Iterator[int]:
    """Write parts; yield each one's number once it is on disk."""
    if processes == 1 or len(numbers) < 2:
        for number in numbers:
            yield _write_part(corpus, number)
        return
    yield from workers.each(min(processes, len(numbers)), _keep, (corpus,), _write_kept, numbers)


_kept: Corpus | None = None


def _keep(corpus: Corpus) -> None:
    global _kept
    _kept = corpus


def _write_kept(number: int) -> int:
    assert _kept is not None
    return _write_part(_kept, number)


def _write_part(corpus: Corpus, number: int) -> int:
    documents = corpus.part(number)
    length = corpus.layout.document_length
    packed = corpus.layout.ends_with_eod
    tokens = np.empty((len(documents), length), dtype=corpus.dtype)
    for row, document in enumerate(documents):
        tokens[row, : length - packed] = corpus.ids[corpus.source.tokens(document, length - packed)]
    if packed:
        tokens[:, -1] = corpus.eod
    with open(corpus.partial, "r+b") as file:
        file.seek(documents.start * length * tokens.itemsize)
        file.write(tokens.tobytes())
        file.flush()
        os.fsync(file.fileno())
    return number


def _finish(corpus: Corpus) -> None:
    """Write the index, name both files, and forget the journal."""
    from megatron.core.datasets.indexed_dataset import _IndexWriter

    index = corpus.idx.with_name(corpus.idx.name + ".partial")
    with _IndexWriter(str(index), corpus.dtype) as writer:
        # A document is one sequence; the last of the boundaries is their number.
        writer.write([corpus.layout.document_length] * corpus.documents, None, range(corpus.documents + 1))
    with open(index, "rb") as file:
        os.fsync(file.fileno())
    if corpus.partial.exists():
        os.replace(corpus.partial, corpus.bin)
    os.replace(index, corpus.idx)
    corpus.journal.unlink()
