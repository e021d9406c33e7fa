"""The text: the sources of this machine's Python standard library, documentation strings and all.

Every Python has them, no download is needed, and they are real: English and code, written by hundreds of people.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "pydoc_data", "lib2to3"}
)
"""Other people's packages, tests, and tables that a program wrote."""

LARGEST_FILE = 200_000
"""Bytes; a larger file is generated, or would be a tenth of the validation set."""


@dataclass(frozen=True)
class Document:
    """One source file.

    Attributes:
        name: Its path below the standard library's folder.
        text: What it says.
    """

    name: str
    text: str


def read_documents(library: Path | None = None) -> list[Document]:
    """Read the standard library's sources in an order that mixes its packages and is the same everywhere.

    Args:
        library: Folder to read, by default the running Python's.

    Returns:
        The documents, ordered by a hash of their names; the last ones serve as validation.
    """
    library = library or Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in library.rglob("*.py") if _is_wanted(path, library)]
    documents = [Document(path.relative_to(library).as_posix(), _read(path)) for path in paths]
    return sorted((document for document in documents if document.text.strip()), key=_shuffled)


def _is_wanted(path: Path, library: Path) -> bool:
    return not LEFT_OUT.intersection(path.relative_to(library).parts) and path.stat().st_size <= LARGEST_FILE


def _read(path: Path) -> str:
    # A few sources are in Latin-1 and say so in a comment; what little they hold beyond ASCII is names.
    return path.read_text(encoding="utf-8", errors="replace")


def _shuffled(document: Document) -> str:
    return hashlib.sha256(document.name.encode()).hexdigest()
