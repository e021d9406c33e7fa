"""Pickles of checkpoints, read and written where the classes they mention are not installed.

Megatron-LM's arguments hold enums of Megatron's, FP8 state holds recipes of Transformer Engine's. A class that is neither
torch's nor numpy's nor a plain container is never imported: it becomes a stand-in that keeps what it was made of, and is
written back as it was. The module offers what ``torch.load`` and ``torch.save`` ask of a ``pickle_module``.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Iterator
from typing import IO, Any

KNOWN_PACKAGES = ("torch", "numpy")
KNOWN_MODULES = ("argparse", "collections", "copyreg", "copy_reg", "_codecs", "io", "_io", "types")
KNOWN_BUILTINS = ("bytearray", "complex", "dict", "frozenset", "list", "object", "range", "set", "slice", "tuple")


class _ForeignType(type):
    """A class or function that is not imported; calling it makes an instance that remembers the call."""

    module_name: str
    class_name: str

    def __call__(cls: Any, *arguments: Any) -> Any:
        made = cls.__new__(cls, *arguments)
        made.foreign_call = True
        return made


class Foreign(metaclass=_ForeignType):
    """An object of a class that is not imported.

    Attributes:
        foreign_arguments: What it was made of.
        foreign_call: Whether by a call, as enums are, or by ``__new__``.
        state: Its attributes, as pickled; None without.
    """

    foreign_arguments: tuple[Any, ...]
    foreign_call: bool
    state: Any
    items: list[Any]
    pairs: list[tuple[Any, Any]]

    def __new__(cls, *arguments: Any) -> Foreign:  # noqa: D102
        made = object.__new__(cls)
        made.foreign_arguments, made.foreign_call = arguments, False
        made.state, made.items, made.pairs = None, [], []
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Take an item of a subclass of list."""
        self.items.append(item)

    def extend(self, items: Any) -> None:
        """Take items of a subclass of list."""
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs.append((key, value))

    def __call__(self, *arguments: Any) -> Made:
        """Stand for what a function that an object stands for would return, as a method of a class that is not imported."""
        return Made(self, arguments)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        made: tuple[Any, ...]
        if self.foreign_call:
            made = (type(self), self.foreign_arguments)
        else:
            made = (copyreg.__newobj__, (type(self), *self.foreign_arguments))  # type: ignore[attr-defined]
        return (*made, self.state, _iterator(self.items), _iterator(self.pairs))


class Made:
    """What a function would return that is itself a stand-in: a parameter that Transformer Engine keeps in FP8, for one.

    Args:
        function: The stand-in.
        arguments: It was called with.
    """

    def __init__(self, function: Foreign, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.function, self.arguments


def _iterator(values: list[Any]) -> Iterator[Any] | None:
    return iter(values) if values else None


_foreign_types: dict[tuple[str, str], _ForeignType] = {}


def _foreign_type(module: str, name: str) -> _ForeignType:
    found = _foreign_types.get((module, name))
    if found is None:
        found = _ForeignType(name, (Foreign,), {"module_name": module, "class_name": name})
        _foreign_types[module, name] = found
    return found


class Unpickler(pickle.Unpickler):
    """Imports what is known, and stands in for the rest."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class, or the stand-in for one that is not known or not there."""
        if _is_known(module, name):
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                pass
        return _foreign_type(module, name)


def _is_known(module: str, name: str) -> bool:
    if module in ("builtins", "__builtin__"):
        return name in KNOWN_BUILTINS
    return module in KNOWN_MODULES or module.partition(".")[0] in KNOWN_PACKAGES


# The one in C looks a class up by its name before it writes the name; the one in Python leaves that to a method.
_PythonPickler: Any = vars(pickle)["_Pickler"]


class Pickler(_PythonPickler):
    """Writes stand-ins by the names of what they stand for."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Write the name of a class or function."""
        if not isinstance(obj, _ForeignType):
            super().save_global(obj, name)
            return
        self.write(pickle.GLOBAL + f"{obj.module_name}\n{obj.class_name}\n".encode())
        self.memoize(obj)


def load(file: IO[bytes], **options: Any) -> Any:
    """Read one object."""
    return Unpickler(file, **options).load()


def dump(value: Any, file: IO[bytes], protocol: int | None = None) -> None:
    """Write one object."""
    Pickler(file, protocol).dump(value)


def state_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object or of its stand-in, to be read and changed."""
    attributes: dict[str, Any] = value.state if isinstance(value, Foreign) else vars(value)
    return attributes


def replace_state(value: Any, attributes: dict[str, Any]) -> None:
    """Give an object, or its stand-in, other attributes."""
    if isinstance(value, Foreign):
        value.state = attributes
    else:
        vars(value).clear()
        vars(value).update(attributes)
