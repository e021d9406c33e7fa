"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name beside it, and give it its own name once all of it is on disk.

    The temporary name is always the same, so what a killed process leaves is overwritten by the next.

    Args:
        path: The file; its folder is made.

    Yields:
        The temporary name to write to; it is removed if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _flush(path: Path) -> None:
    # A rename can reach the disk before the data does; a power cut would then leave an empty file under the final name.
    with open(path, "rb") as file:
        os.fsync(file.fileno())
