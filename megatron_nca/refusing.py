"""How a launch that is refused on every rank alike ends: one line from rank 0, an exit code that is not 0 from all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from megatron_nca.errors import NCAError

GRACE_SECONDS = 1.0
"""How long other ranks wait: a launcher that sees one end may end rank 0 before it has said why."""


@contextmanager
def alike_on_every_rank() -> Iterator[None]:
    """Mark errors raised inside, where each rank has the same input and decides the same."""
    try:
        yield
    except NCAError as error:
        error.is_of_every_rank = True
        raise


def install() -> None:
    """Let Python end with one line for a marked error; for any other as ever. A second call changes nothing."""
    if not hasattr(sys.excepthook, "__nca_refusing__"):
        before = sys.excepthook

        def tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            if isinstance(error, NCAError) and error.is_of_every_rank:
                _tell_once(error)
            else:
                before(kind, error, traceback)

        tell.__nca_refusing__ = True  # type: ignore[attr-defined]
        sys.excepthook = tell


def _tell_once(error: NCAError) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(f"megatron-nca: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    else:
        time.sleep(GRACE_SECONDS)
