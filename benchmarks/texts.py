"""Three real texts of different kinds, tokenised as a pre-training run would have them: code, English prose, markup.

Run as ``python -m benchmarks.texts FOLDER``. Texts are what a Debian machine with manual pages has: the Python standard
library; paragraphs of manual pages and licences, each once; HTML and XML under /usr/share. One byte-level BPE of 16,384 ids is
trained on all three, and each becomes a .bin and .idx for ``megatron-nca calibrate``.
"""

from __future__ import annotations

import argparse
import gzip
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

VOCABULARY = 16_384
CHARACTERS = 12_000_000
TRAINING_CHARACTERS = 4_000_000
MARKUP_CHARACTERS = range(500, 300_000)
LEAST_WORDS = 25
ESCAPES = {r"\-": "-", r"\(aq": "'", r"\e": "\\"}


def code() -> Iterator[str]:
    """Yield the modules of the standard library, tests left out."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if not {"site-packages", "test", "tests"} & set(path.parts):
            yield path.read_text(encoding="utf-8", errors="replace")


def prose() -> Iterator[str]:
    """Yield paragraphs of whole sentences from manual pages, a page a document, and licences."""
    seen: set[str] = set()
    for path in sorted(Path("/usr/share/man").glob("man[1-8]/*")):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        page = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8", errors="replace")
        fresh = [part for part in paragraphs(page) if is_prose(part) and part not in seen]
        seen.update(fresh)
        if fresh:
            yield "\n\n".join(fresh)
    for path in sorted(Path("/usr/share/common-licenses").iterdir()):
        if not path.is_symlink():
            yield path.read_text(encoding="utf-8", errors="replace")


def paragraphs(page: str) -> Iterator[str]:
    """Take a manual page apart: requests and empty lines part its paragraphs."""
    page = re.sub(r"\\f\(..|\\f\[.*?\]|\\f.|\\&|\\\||\\/", "", page)
    for escape, meaning in ESCAPES.items():
        page = page.replace(escape, meaning)
    lines: list[str] = []
    for line in [*page.splitlines(), ""]:
        if line.strip() and line[0] not in ".'":
            lines.append(line.strip())
        elif lines:
            yield " ".join(lines)
            lines = []


def is_prose(paragraph: str) -> bool:
    """Tell sentences from tables, options and examples."""
    words = paragraph.split()
    plain = sum(word.isalpha() for word in words)
    return len(words) >= LEAST_WORDS and paragraph[0].isupper() and paragraph[-1] in ".:" and plain > 0.75 * len(words)


def markup() -> Iterator[str]:
    """Yield HTML and XML files, each content once."""
    seen: set[str] = set()
    for path in sorted([*Path("/usr/share").rglob("*.html"), *Path("/usr/share").rglob("*.xml")]):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) in MARKUP_CHARACTERS and text not in seen:
            seen.add(text)
            yield text


def thinned(documents: Iterable[str], characters: int) -> list[str]:
    """Take every n-th document, so that about so many characters remain."""
    held = list(documents)
    return held[:: max(sum(map(len, held)) // characters, 1)]


def main() -> None:
    """Make the three texts."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    from examples.quickstart.text import ByteLevelBPE, train_tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"python_code": list(code()), "english_prose": list(prose()), "html_and_xml": list(markup())}
    sample = [document for documents in texts.values() for document in thinned(documents, TRAINING_CHARACTERS)]
    train_tokenizer(sample, VOCABULARY, folder / "tokenizer.json")
    tokenizer = ByteLevelBPE(folder / "tokenizer.json")
    for name, documents in texts.items():
        builder = IndexedDatasetBuilder(f"{folder / name}.bin", dtype=np.uint16)
        total = 0
        for ids in map(tokenizer.tokenize, thinned(documents, CHARACTERS)):
            builder.add_document(torch.tensor([*ids, tokenizer.eod]), [len(ids) + 1])
            total += len(ids) + 1
        builder.finalize(f"{folder / name}.idx")
        print(f"{name}: {total:,} tokens")


if __name__ == "__main__":
    main()
