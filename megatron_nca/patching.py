"""Put a wrapper in the place of another package's function, with a mark of our own, at once or when it is imported."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, TypeVar

MARK = "__megatron_nca__"
"""Attribute of a wrapper of ours. Another package's wrapper around it carries it too, as functools.wraps copies attributes; a
wrapper of theirs around a function without it does not, and is wrapped in its turn."""

T = TypeVar("T")
"""What a replaced function returns, and so its wrapper."""

Function = Callable[..., Any]
"""A function of another package, whatever it takes and returns."""

Wrapper = Callable[[Function], Function]
"""Makes what stands in a function's place."""

Action = Callable[[ModuleType], None]


def is_patched(holder: object, name: str) -> bool:
    """Tell whether a function, or one that it wraps, is a wrapper of ours."""
    return hasattr(getattr(holder, name, None), MARK)


def patch(holder: object, name: str, wrapper: Wrapper, package: str = "", owner: object = True) -> None:
    """Replace a function where it is defined, and wherever modules of its package have imported it by name.

    Args:
        holder: The module or class that defines it.
        name: Its name there.
        wrapper: Takes the function and returns what stands in its place, whose ``__wrapped__`` the function becomes.
        package: Name of the package; empty for a method, which nobody imports by name.
        owner: Kept as the mark; a function that has one is left alone.
    """
    if is_patched(holder, name):
        return
    original = getattr(holder, name)
    replacement = functools.wraps(original)(wrapper(original))
    setattr(replacement, MARK, owner)
    setattr(holder, name, replacement)
    for module_name, loaded in list(sys.modules.items()):
        if package and module_name.startswith(package) and getattr(loaded, name, None) is original:
            setattr(loaded, name, replacement)


def is_importable(name: str) -> bool:
    """Tell whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def owner_of(holder: object, name: str) -> Any:
    """Return the owner that a wrapper of ours was made with, or None."""
    return getattr(getattr(holder, name, None), MARK, None)


def after_import(name: str, act: Action, key: object = None) -> None:
    """Call ``act`` with a module: at once if it has been imported, or else right after it is.

    Args:
        name: The module's full name.
        act: Takes the module; it must not import what may be importing that module.
        key: What tells it from others; one that waits already under the same key is enough.
    """
    if name in sys.modules:
        act(sys.modules[name])
    elif key is None or not any(isinstance(finder, _Finder) and finder.key == key for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, act, key))


class _Finder:
    """Finds one module as the others would, and adds the action to its loading."""

    def __init__(self, name: str, act: Action, key: object = None) -> None:
        self.name = name
        self.key = key
        self.act = act

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            self.act(module)

        loader.exec_module = execute_and_act
        return spec
