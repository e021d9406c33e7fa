"""Pickles of checkpoints, read and written where the classes they mention are not installed.

Megatron-LM's arguments hold enums of Megatron's, FP8 state holds recipes of Transformer Engine's. A checkpoint may be a
stranger's, and a pickle is a program: of its names only those of one exact list are imported, which make tensors, arrays and
plain containers and can do nothing else. Any other becomes a stand-in that keeps what it was made of, and is written back as it
was; one that can only be meant to run something is refused. The module offers what ``torch.load`` and ``torch.save`` ask of a
``pickle_module``.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Iterator
from typing import IO, Any

import torch

from megatron_nca.errors import NCAError

PLAIN = (torch.dtype, torch.memory_format, torch.layout)
IMPORTED = {
    "builtins": ("bytearray", "complex", "dict", "frozenset", "list", "object", "range", "set", "slice", "tuple"),
    "argparse": ("Namespace",),
    "collections": ("OrderedDict", "defaultdict", "deque"),
    "copyreg": ("_reconstructor",),
    "_codecs": ("encode",),
    "io": ("BytesIO",),
    "types": ("SimpleNamespace",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
    "torch": (
        "Size", "Tensor", "device",
        *sorted(name for name, value in vars(torch).items() if isinstance(value, PLAIN)),
    ),
    "torch._tensor": ("_rebuild_from_type_v2",),
    "torch._utils": (
        "_rebuild_meta_tensor_no_storage", "_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_tensor",
        "_rebuild_tensor_v2", "_rebuild_tensor_v3",
    ),
    "torch.nn.parameter": ("Parameter",),
    "torch.serialization": ("_get_layout",),
    "torch.torch_version": ("TorchVersion",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    ),
}  # fmt: skip
"""Names by module: all that is ever imported. A name with a dot reaches through a module to another, so none stands here."""
LOADING = ("torch.storage", "_load_from_bytes")
"""How a storage is pickled that ``torch.save`` does not write: as bytes that are unpickled in turn."""
OLDER = {"__builtin__": "builtins", "copy_reg": "copyreg", "_io": "io"}

RUNNING = {
    "builtins": ("__import__", "breakpoint", "compile", "eval", "exec", "execfile", "open"),
    "torch.hub": ("load",),
    "types": ("CodeType", "FunctionType"),
}
RUNNING_MODULES = (
    "code", "commands", "ctypes", "imp", "importlib", "marshal", "multiprocessing", "nt", "os", "pickle", "_pickle", "pip",
    "posix", "pty", "runpy", "shutil", "socket", "subprocess", "sys", "webbrowser",
)  # fmt: skip
"""What no checkpoint has a use for. Safety does not rest on it, since it is not imported anyway; a user should be told."""


class _UnimportedType(type):
    """A class or function that is not imported; calling it makes an instance that remembers the call."""

    module_name: str
    class_name: str

    def __call__(cls: Any, *arguments: Any) -> Any:
        made = cls.__new__(cls, *arguments)
        made.unimported_call = True
        return made


class UnimportedObject(metaclass=_UnimportedType):
    """An object of a class that is not imported.

    Attributes:
        unimported_arguments: What it was made of.
        unimported_call: Whether by a call, as enums are, or by ``__new__``.
        state: Its attributes, as pickled; None without.
    """

    unimported_arguments: tuple[Any, ...]
    unimported_call: bool
    state: Any
    items: list[Any]
    pairs: list[tuple[Any, Any]]

    def __new__(cls, *arguments: Any) -> UnimportedObject:  # noqa: D102
        made = object.__new__(cls)
        made.unimported_arguments, made.unimported_call = arguments, False
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

    def __call__(self, *arguments: Any) -> DeferredCall:
        """Stand for what a function that an object stands for would return, as a method of a class that is not imported."""
        return DeferredCall(self, arguments)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        made: tuple[Any, ...]
        if self.unimported_call:
            made = (type(self), self.unimported_arguments)
        else:
            made = (copyreg.__newobj__, (type(self), *self.unimported_arguments))  # type: ignore[attr-defined]
        return (*made, self.state, _iterator(self.items), _iterator(self.pairs))


class DeferredCall:
    """What a function would return that is itself a stand-in: a parameter that Transformer Engine keeps in FP8, for one.

    Args:
        function: The stand-in.
        arguments: It was called with.
    """

    def __init__(self, function: UnimportedObject, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.function, self.arguments


def _iterator(values: list[Any]) -> Iterator[Any] | None:
    return iter(values) if values else None


_unimported_types: dict[tuple[str, str], _UnimportedType] = {}


def _unimported_type(module: str, name: str) -> _UnimportedType:
    found = _unimported_types.get((module, name))
    if found is None:
        found = _UnimportedType(name, (UnimportedObject,), {"module_name": module, "class_name": name})
        _unimported_types[module, name] = found
    return found


class Unpickler(pickle.Unpickler):
    """Imports what the list holds, and stands in for the rest."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class, or the stand-in for one that is not on the list or not there.

        Raises:
            NCAError: The name can only be meant to run something.
        """
        place = OLDER.get(module, module)
        if (place, name) == LOADING:
            return _load_storage
        if name in IMPORTED.get(place, ()):
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                return _unimported_type(module, name)
        _refuse_running(place, name)
        return _unimported_type(module, name)


def _load_storage(content: bytes) -> Any:
    """Do what ``torch.storage._load_from_bytes`` does, with this module's list instead of none."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False, pickle_module=sys.modules[__name__])


def _refuse_running(module: str, name: str) -> None:
    package = module.partition(".")[0]
    reaches_through = "." in name and (package in sys.stdlib_module_names or package in ("torch", "numpy"))
    if reaches_through or package in RUNNING_MODULES or name in RUNNING.get(module, ()):
        raise NCAError(
            f"the file asks to import {module}.{name}, which is code and no data; it is not a checkpoint to be trusted"
        )


# The one in C looks a class up by its name before it writes the name; the one in Python leaves that to a method.
_PythonPickler: Any = vars(pickle)["_Pickler"]


class Pickler(_PythonPickler):
    """Writes stand-ins by the names of what they stand for."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Write the name of a class or function."""
        if not isinstance(obj, _UnimportedType):
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
    attributes: dict[str, Any] = value.state if isinstance(value, UnimportedObject) else vars(value)
    return attributes


def replace_state(value: Any, attributes: dict[str, Any]) -> None:
    """Give an object, or its stand-in, other attributes."""
    if isinstance(value, UnimportedObject):
        value.state = attributes
    else:
        vars(value).clear()
        vars(value).update(attributes)
