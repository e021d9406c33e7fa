"""Put a wrapper in the place of a framework's function."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def replace(module: ModuleType, function_name: str, wrapper: Callable[[Any], Any], package: str) -> None:
    """Replace a function where it is defined, and wherever modules of its package have imported it by name.

    Args:
        module: Where the function is defined.
        function_name: Its name there.
        wrapper: Takes the function and returns what stands in its place, whose ``__wrapped__`` the function becomes.
        package: Name of the package.
    """
    original = getattr(module, function_name)
    replacement = functools.wraps(original)(wrapper(original))
    for name, loaded in list(sys.modules.items()):
        if (loaded is module or name.startswith(package)) and getattr(loaded, function_name, None) is original:
            setattr(loaded, function_name, replacement)
