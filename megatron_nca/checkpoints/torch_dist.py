"""The format ``torch_dist``: torch.distributed.checkpoint's files, with what is common to all ranks beside or inside them.

``.metadata`` says of every piece of every tensor in which ``.distcp`` file it lies, where, and how long it is; a piece is what
``torch.save`` writes. So what is kept is copied as bytes, without being loaded, what is dropped is not copied, and what is new
is written as pieces of its own. Any layout loads the result, whatever the one that wrote the original.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from megatron_nca.checkpoints import pickling, scaling
from megatron_nca.checkpoints.arguments import read_args, restart
from megatron_nca.checkpoints.folder import CONFIG
from megatron_nca.checkpoints.reinit import LAYER, NewWeight, ReinitSpec
from megatron_nca.checkpoints.release import Advance, WriteResult, without_run_state
from megatron_nca.errors import NCAError

METADATA, COMMON, INTEGRITY = ".metadata", "common.pt", "integrity.json"
COMMON_KEY = "common_state/shard_0_1"
"""Where Megatron-Core 0.19 keeps what earlier versions write to ``common.pt``."""

RUN_STATE = re.compile(r"^(chained_\d+\.)?optimizer\.|^(.+\.)?rng_state/|^rerun_state_machine|^opt_param_scheduler")
NEW_FILE = "__nca_0.distcp"
PIECE_BYTES = 256 << 20
"""Size in bytes of the pieces in which a new embedding is drawn and written."""
COPY_BYTES = 16 << 20


class DistCheckpoint:
    """A checkpoint of the format ``torch_dist``.

    Args:
        folder: Folder of one iteration.

    Raises:
        NCAError: Its metadata cannot be read, or is not Megatron-LM's.
    """

    format = "torch_dist"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            with (folder / METADATA).open("rb") as file:
                self._metadata = pickling.load(file)
            fields = pickling.state_of(self._metadata)
            self._tensors, self._storage = fields["state_dict_metadata"], fields["storage_data"]
            _check_places(self._storage)
        except Exception as error:
            raise NCAError(f"{folder / METADATA}: cannot be read as a distributed checkpoint's ({error})") from error
        self._kept = [index for index in self._storage if not RUN_STATE.match(index.fqn)]
        self.common = self._read_common()
        self.args = read_args(self.common, folder)
        self.iteration = int(self.common.get("iteration", 0))

    @property
    def size(self) -> int:
        """Bytes of what is kept."""
        return sum(self._storage[index].length for index in self._kept)

    def write(self, folder: Path, reinit: ReinitSpec, mark: dict[str, Any], advance: Advance) -> WriteResult:
        """Write the start of a text run.

        Args:
            folder: Empty.
            reinit: What becomes new.
            mark: Origin of the weights, to store in the arguments.
            advance: Called with bytes copied.

        Raises:
            NCAError: The model cannot be treated, or a file is missing.
        """
        keys = {index.fqn for index in self._kept}
        reinit.check(keys)
        written = WriteResult()
        new = {key: draw for key in sorted(keys) if (draw := self._drawer(key, reinit)) is not None}
        writer = _Writer(folder, next(iter(self._storage.values())))
        self._copy(writer, [index for index in self._kept if index.fqn not in new], written, advance)
        described = {key: value for key, value in self._tensors.items() if key in keys}
        for key, draw in new.items():
            described[key] = draw(writer)
            written.reinitialized[key] = tuple(described[key].size)
            advance(sum(self._storage[index].length for index in self._kept if index.fqn == key))
        restart(self.args, reinit.vocabulary, mark)
        self._write_common(folder, writer)
        writer.close()
        self._write_metadata(folder, described, writer.storage)
        shutil.copyfile(self.folder / CONFIG, folder / CONFIG)
        if (self.folder / INTEGRITY).is_file():
            _write_integrity(folder)
        return written

    def _read_common(self) -> dict[str, Any]:
        path = self.folder / COMMON
        try:
            common: dict[str, Any]
            if path.is_file():
                common = _load(path.read_bytes())
            else:
                index = next((index for index in self._kept if index.fqn == COMMON_KEY), None)
                common = {} if index is None else _load(self._bytes(index))[0]
            return common
        except Exception as error:
            raise NCAError(f"{self.folder}: the part common to all ranks cannot be read ({error})") from error

    def _bytes(self, index: Any) -> bytes:
        info = self._storage[index]
        with (self.folder / info.relative_path).open("rb") as file:
            file.seek(info.offset)
            data: bytes = file.read(info.length)
            return data

    def _copy(self, writer: _Writer, indices: Sequence[Any], written: WriteResult, advance: Advance) -> None:
        """Copy pieces as they are, in the order of their files; FP8 state is read and cleared."""
        sources: dict[str, BinaryIO] = {}
        try:
            for index in sorted(indices, key=lambda index: (self._storage[index].relative_path, self._storage[index].offset)):
                info = self._storage[index]
                if index.fqn == COMMON_KEY:
                    continue
                if scaling.is_extra_state(index.fqn):
                    piece, cleared = _cleared(self._bytes(index))
                    written.scaling_states += cleared
                    writer.add(index, info.relative_path, piece)
                else:
                    if info.relative_path not in sources:
                        for done in sources.values():
                            done.close()
                        sources = {info.relative_path: (self.folder / info.relative_path).open("rb")}
                    writer.copy(index, info, sources[info.relative_path])
                advance(info.length)
        except FileNotFoundError as error:
            raise NCAError(f"{self.folder}: a file of the checkpoint is missing ({error})") from error
        finally:
            for source in sources.values():
                source.close()

    def _drawer(self, key: str, reinit: ReinitSpec) -> Callable[[_Writer], Any] | None:
        """Return what writes a parameter anew and describes it, or None for a parameter that is kept."""
        described = self._tensors[key]
        if not hasattr(described, "size"):
            return None
        embedding = reinit.embedding(key)
        if embedding is not None:
            shape = (reinit.vocabulary or described.size[0], *described.size[1:])
            return lambda writer: self._draw_rows(writer, key, embedding, shape, reinit)
        layer = LAYER.match(key)
        if layer is None:
            weight = reinit.final_norm(key)
            return None if weight is None else lambda writer: self._draw_layers(writer, key, [weight], False, reinit)
        stacked = layer[1] is None
        numbers = range(1, described.size[0] + 1) if stacked else [int(layer[1]) + 1]
        dimensions = len(described.size) - stacked
        found = [reinit.layer(number, layer[2], dimensions) for number in numbers]
        drawn = [weight for weight in found if weight is not None]
        return (lambda writer: self._draw_layers(writer, key, drawn, stacked, reinit)) if drawn else None

    def _draw_rows(self, writer: _Writer, key: str, weight: NewWeight, shape: Sequence[int], reinit: ReinitSpec) -> Any:
        step = max(1, PIECE_BYTES // (4 * shape[1]))

        def pieces() -> Iterator[tuple[Sequence[int], torch.Tensor]]:
            for first in range(0, shape[0], step):
                yield (first, 0), reinit.rows(weight, shape, first, min(step, shape[0] - first))

        return self._write_pieces(writer, key, shape, pieces())

    def _draw_layers(self, writer: _Writer, key: str, drawn: Sequence[NewWeight], stacked: bool, reinit: ReinitSpec) -> Any:
        shape = tuple(self._tensors[key].size)

        def pieces() -> Iterator[tuple[Sequence[int], torch.Tensor]]:
            for place, weight in enumerate(drawn):
                whole = reinit.full(weight, shape[1:] if stacked else shape)
                rest = (0,) * (len(shape) - 1)
                yield (place, *rest) if stacked else (0, *rest), whole[None] if stacked else whole

        return self._write_pieces(writer, key, shape, pieces())

    def _write_pieces(
        self, writer: _Writer, key: str, shape: Sequence[int], pieces: Iterator[tuple[Sequence[int], torch.Tensor]]
    ) -> Any:
        """Write a tensor's pieces; returns its description."""
        described = copy.copy(self._tensors[key])
        index = next(index for index in self._kept if index.fqn == key)
        described.size, chunks = torch.Size(shape), []
        for offsets, values in pieces:
            place = torch.Size(offsets)
            chunks.append(dataclasses.replace(described.chunks[0], offsets=place, sizes=values.shape))
            writer.add(
                dataclasses.replace(index, offset=place, index=None), NEW_FILE, _piece(values, described.properties.dtype)
            )
        described.chunks = chunks
        return described

    def _write_common(self, folder: Path, writer: _Writer) -> None:
        state = without_run_state(self.common)
        if (self.folder / COMMON).is_file():
            torch.save(state, folder / COMMON, pickle_module=pickling)
            return
        index = next(index for index in self._kept if index.fqn == COMMON_KEY)
        writer.add(index, self._storage[index].relative_path, _save([state]))

    def _write_metadata(self, folder: Path, described: dict[str, Any], storage: dict[Any, Any]) -> None:
        metadata = copy.copy(self._metadata)
        fields = dict(pickling.state_of(self._metadata))
        # Plans for saving in the same layout again; readers do without.
        fields.pop("all_local_plans", None)
        fields.update(state_dict_metadata=described, storage_data=storage)
        for name in ("planner_data", "mcore_data"):
            if isinstance(fields.get(name), dict):
                fields[name] = {key: value for key, value in fields[name].items() if key in described}
        pickling.replace_state(metadata, fields)
        with (folder / METADATA).open("wb") as file:
            pickling.dump(metadata, file)


def _check_places(storage: dict[Any, Any]) -> None:
    """Refuse a piece that lies, and so would be written, elsewhere than in a file of its own beside the metadata.

    Raises:
        NCAError: Names the piece.
    """
    for index, info in storage.items():
        name = info.relative_path
        bare = isinstance(name, str) and re.fullmatch(r"[\w.+-]+", name, re.ASCII) and not name.startswith(".")
        if not bare or name in (COMMON, INTEGRITY, CONFIG):
            raise NCAError(f"{index.fqn} is said to lie in {name!r}, which is no plain name of a file of pieces")
        if not all(isinstance(number, int) and number >= 0 for number in (info.offset, info.length)):
            raise NCAError(f"{index.fqn} is said to lie at byte {info.offset!r}, {info.length!r} long")


class _Writer:
    """Appends pieces to files and remembers where each lies.

    Args:
        folder: Folder of the files.
        example: An entry of the storage's description, whose type and further fields new ones take.
    """

    def __init__(self, folder: Path, example: Any) -> None:
        self.storage: dict[Any, Any] = {}
        self._folder, self._example = folder, example
        self._name, self._file = "", None  # type: tuple[str, BinaryIO | None]

    def add(self, index: Any, name: str, piece: bytes) -> None:
        """Append a piece that is in memory."""
        file = self._open(name)
        self.storage[index] = dataclasses.replace(self._example, relative_path=name, offset=file.tell(), length=len(piece))
        file.write(piece)

    def copy(self, index: Any, info: Any, source: BinaryIO) -> None:
        """Append a piece of another file."""
        file = self._open(info.relative_path)
        self.storage[index] = dataclasses.replace(info, offset=file.tell())
        source.seek(info.offset)
        remaining = info.length
        while remaining:
            block = source.read(min(remaining, COPY_BYTES))
            if not block:
                raise NCAError(f"{source.name}: is shorter than the checkpoint's metadata says, so it is not complete")
            file.write(block)
            remaining -= len(block)

    def close(self) -> None:
        """Finish the last file."""
        if self._file is not None:
            self._file.close()

    def _open(self, name: str) -> BinaryIO:
        if self._file is None or self._name != name:
            self.close()
            self._name, self._file = name, (self._folder / name).open("ab")
        return self._file


def _piece(values: torch.Tensor, dtype: torch.dtype) -> bytes:
    written = io.BytesIO()
    torch.save(values.to(dtype).contiguous().clone(), written)
    return written.getvalue()


def _cleared(piece: bytes) -> tuple[bytes, int]:
    """Return a module's FP8 state without what it has seen, and 1 if there was any."""
    values = _load(piece)
    inner = values[0] if isinstance(values, list) and len(values) == 1 else values
    cleared = scaling.cleared(inner)
    if cleared is None:
        return piece, 0
    return _save([cleared] if isinstance(values, list) else cleared), 1


def _load(piece: bytes) -> Any:
    return torch.load(io.BytesIO(piece), map_location="cpu", weights_only=False, pickle_module=pickling)


def _save(values: Any) -> bytes:
    written = io.BytesIO()
    torch.save(values, written, pickle_module=pickling)
    return written.getvalue()


def _write_integrity(folder: Path) -> None:
    """Write the digests that ``--verify-integrity`` of Megatron-Core 0.19 checks."""
    digests = {}
    for path in sorted(folder.iterdir()):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(COPY_BYTES):
                digest.update(block)
        digests[path.name] = digest.hexdigest()
    (folder / INTEGRITY).write_text(json.dumps({"algorithm": "sha256", "files": digests}, indent=2), encoding="utf-8")
