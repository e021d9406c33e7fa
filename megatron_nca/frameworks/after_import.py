"""Change a module the moment it has been imported, without importing it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]


def after_import(name: str, act: Action) -> None:
    """Call ``act`` with a module: at once if it has been imported, or else right after it is.

    Args:
        name: The module's full name.
        act: Takes the module; it must not import what may be importing that module.
    """
    if name in sys.modules:
        act(sys.modules[name])
        return
    sys.meta_path.insert(0, _Finder(name, act))


class _Finder:
    """Finds one module as the others would, and adds the action to its loading."""

    def __init__(self, name: str, act: Action) -> None:
        self.name = name
        self.act = act

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
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
