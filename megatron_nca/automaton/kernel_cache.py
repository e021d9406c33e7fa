"""A cache of compiled kernels that can only help.

Numba keeps machine code beside the package, or in the user's cache folder (``NUMBA_CACHE_DIR``) where that is not writable, and
replaces its files atomically. What is left to go wrong on a file system that a thousand ranks share - a full disk, a stale
handle, a file cut short by a crash - must cost a compilation and never a run.
"""

from __future__ import annotations

import logging
from typing import Any

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
        return self._attempt(self._inner.load_overload, signature, target_context)

    def save_overload(self, signature: Any, data: Any) -> None:
        """Keep machine code for later processes, if possible."""
        self._attempt(self._inner.save_overload, signature, data)

    @staticmethod
    def _attempt(action: Any, *arguments: Any) -> Any:
        try:
            return action(*arguments)
        # A cut-off pickle can raise anything, and a network file system any OSError; the remedy is the same for all.
        except Exception as error:
            logger.debug("kernel cache not used: %s: %s", type(error).__name__, error)
            return None


def forgiving_cache(function: Any) -> None:
    """Give a numba function a cache, unless it has one or none can be had.

    Args:
        function: A dispatcher, as ``numba.njit`` returns it.
    """
    if isinstance(function._cache, ForgivingCache):
        return
    try:
        function.enable_caching()
    except (RuntimeError, OSError) as error:
        # Numba found no folder it may write to.
        logger.debug("kernel cache not used: %s", error)
        return
    function._cache = ForgivingCache(function._cache)
