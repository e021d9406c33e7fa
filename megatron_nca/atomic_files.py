"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file gets its own name at the end, and nothing stays where writing fails.

    A link is followed, so that it stays one.

    Args:
        path: The file's own name.

    Yields:
        A name beside it, so that the rename stays within one file system.
    """
    place = Path(os.path.realpath(path))
    partial = place.with_name(f".{place.name}.partial")
    try:
        yield partial
        os.replace(partial, place)
    except OSError as error:
        # A full disk does not say of what file it speaks.
        error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
