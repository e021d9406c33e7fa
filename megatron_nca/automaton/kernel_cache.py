"""A cache of compiled kernels that can only help.

Numba keeps machine code beside the package, or in the user's cache folder (``NUMBA_CACHE_DIR``) where that is not writable, and
replaces its files atomically. What is left to go wrong on a file system that a thousand ranks share - a full disk, a stale
handle, a file cut short by a crash - must cost a compilation and never a run.

What lies in the folder is run. So a folder, or a file in it, that another user owns or can write to is not used at all.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_nca.errors import EnvironmentMismatchError

logger = logging.getLogger(__name__)


class ForgivingCache:
    """Numba's cache of one function; whatever fails in it is as if nothing had been cached.

    Args:
        inner: Numba's ``FunctionCache``.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the cached machine code, or None to have it compiled."""
        if _reported_untrusted(self._inner.cache_path):
            return None
        try:
            return self._inner.load_overload(signature, target_context)
        except OSError as error:
            _report(error)
        # A cut-off pickle can raise anything.
        except Exception as error:
            _report(error)
            # Numba reads the index before it adds to it, so a damaged one would stay so, and cost every process a compilation.
            self._attempt(self._inner.flush)
        return None

    def save_overload(self, signature: Any, data: Any) -> None:
        """Keep machine code for later processes, if possible."""
        if _reported_untrusted(self._inner.cache_path):
            return
        self._attempt(self._inner.save_overload, signature, data)

    @staticmethod
    def _attempt(action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:
            _report(error)


def untrusted(folder: Path) -> str | None:
    """Tell why what lies in a folder may be another user's, or return None if it is this user's and root's alone.

    A folder above may be open to all if nobody can rename what is not theirs in it, as in ``/tmp``.
    """
    try:
        resolved = folder.resolve()
        for path in (resolved, *resolved.glob("*.nb[ci]"), *resolved.parents):
            status = path.stat()
            above = path in resolved.parents
            if status.st_uid not in (0, os.geteuid()):
                return f"{path} belongs to user {status.st_uid}"
            if _open_to_others(status) and not (above and status.st_mode & stat.S_ISVTX):
                return f"{path} can be written by others"
    except OSError as error:
        return None if isinstance(error, FileNotFoundError) else f"{folder} cannot be looked at ({error})"
    return None


def _open_to_others(status: os.stat_result) -> bool:
    """Tell whether a mode lets others write: all, or a group that is not this user's first one."""
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def _reported_untrusted(folder: str) -> bool:
    why = untrusted(Path(folder))
    if why is not None:
        logger.warning(
            "the folder of compiled kernels is not used, since it holds code and %s; every process compiles for seconds until "
            "NUMBA_CACHE_DIR names a folder of your own, as mktemp -d makes one",
            why,
        )
    return why is not None


def _report(error: Exception) -> None:
    logger.debug("kernel cache not used: %s: %s", type(error).__name__, error)


def forgiving_cache(function: Any) -> None:
    """Give a numba function a cache, unless it has one or none can be had.

    Args:
        function: A dispatcher, as ``numba.njit`` returns it.

    Raises:
        EnvironmentMismatchError: Numba's compiler is turned off.
    """
    if not hasattr(function, "_cache"):
        raise EnvironmentMismatchError(
            "NUMBA_DISABLE_JIT is set, so numba compiles nothing in this process, and the engine's kernels are meant to be "
            "compiled; unset it"
        )
    if isinstance(function._cache, ForgivingCache):
        return
    try:
        function.enable_caching()
    except (RuntimeError, OSError) as error:
        # Numba found no folder it may write to.
        _report(error)
        return
    function._cache = ForgivingCache(function._cache)
