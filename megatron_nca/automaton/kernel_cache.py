"""A cache of compiled kernels that can only help.

Numba keeps machine code beside the package, or in the user's cache folder (``NUMBA_CACHE_DIR``) where that is not writable, and
replaces its files atomically. What is left to go wrong on a file system that a thousand ranks share - a full disk, a stale
handle, a file cut short by a crash - must cost a compilation and never a run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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
        self._attempt(self._inner.save_overload, signature, data)

    @staticmethod
    def _attempt(action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:
            _report(error)


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
