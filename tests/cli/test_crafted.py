"""Checkpoints that a stranger may have written: refused, nothing run, nothing written. See docs/security.md."""

import io
import pickle
import re
import struct

import pytest
import torch
import torch.distributed.checkpoint as dcp

from megatron_nca.checkpoints import pickling
from megatron_nca.checkpoints.pickling import IMPORTED, UnimportedObject
from megatron_nca.errors import NCAError
from tests.cli.transfer.by_hand import digests, stacked, trained, write_dist, write_torch


def program(module, name, *arguments):
    """A pickle that calls something by name."""

    def text(value):
        encoded = value.encode()
        return b"X" + struct.pack("<I", len(encoded)) + encoded

    called = b"(" + b"".join(text(argument) for argument in arguments) + b"tR"
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + called + b"."


@pytest.fixture
def mark(tmp_path):
    """A file that a program would leave."""
    return tmp_path / "it-ran"


REFUSED = [
    ("os", "system"),
    ("posix", "system"),
    ("subprocess", "check_output"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("__builtin__", "eval"),
    ("builtins", "__import__"),
    ("builtins", "open"),
    ("torch", "serialization.os.system"),
    ("torch.serialization", "os.system"),
    ("torch", "hub.os.system"),
    ("numpy", "f2py.os.system"),
    ("collections", "_sys.modules"),
    ("argparse", "_os.system"),
    ("io", "os.system"),
    ("types", "FunctionType"),
    ("types", "CodeType"),
    ("importlib", "import_module"),
    ("runpy", "run_path"),
    ("ctypes", "CDLL"),
    ("marshal", "loads"),
    ("pickle", "loads"),
    ("torch.hub", "load"),
]


@pytest.mark.parametrize(("module", "name"), REFUSED)
def test_a_name_that_runs_something_is_refused(module, name, mark):
    with pytest.raises(NCAError, match=rf"asks to import {re.escape(f'{module}.{name}'.replace('__builtin__', 'builtins'))}"):
        pickling.load(io.BytesIO(program(module, name, f"touch {mark}")))
    assert not mark.exists()


STOOD_FOR = [
    ("builtins", "getattr"),
    ("functools", "partial"),
    ("torch.utils.cpp_extension", "load"),
    ("torch._dynamo", "compile"),
    ("torch.jit", "load"),
    ("numpy", "load"),
    ("numpy", "memmap"),
    ("numpy.testing._private.utils", "runstring"),
    ("torch", "load"),
    ("site", "main"),
    ("antigravity", "x"),
    ("megatron.core.transformer.enums", "AttnBackend"),
]


@pytest.mark.parametrize(("module", "name"), STOOD_FOR)
def test_any_other_name_is_not_imported(module, name, mark):
    made = pickling.load(io.BytesIO(program(module, name, f"touch {mark}")))
    assert isinstance(made, UnimportedObject)
    assert made.unimported_arguments == (f"touch {mark}",)
    assert not mark.exists()
    written = io.BytesIO()
    pickling.dump(made, written)
    assert f"{module}\n{name}\n".encode() in written.getvalue(), "and is written back as it was"


def test_what_is_imported_is_one_exact_list_without_a_way_through():
    for module, names in IMPORTED.items():
        for name in names:
            assert "." not in name
            try:
                found = pickling.Unpickler(io.BytesIO()).find_class(module, name)
            except DeprecationWarning:
                continue
            assert not isinstance(found, type(torch)), "a module"
    callables = {name for names in IMPORTED.values() for name in names}
    assert not callables & {
        "eval",
        "exec",
        "getattr",
        "open",
        "load",
        "loads",
        "system",
        "compile",
        "_load_from_bytes",
        "partial",
    }


class Payload:
    """Pickles as a call."""

    def __init__(self, module, name, *arguments):
        self.call = module, name, arguments

    def __reduce__(self):
        module, name, arguments = self.call
        return getattr(__import__(module), name), arguments


class Storage:
    """Pickles as a storage does, with bytes of one's own."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def test_a_storage_is_read_with_the_same_list(mark):
    values = torch.arange(5.0)
    assert torch.equal(pickling.load(io.BytesIO(pickle.dumps({"x": values})))["x"], values)
    inner = io.BytesIO()
    torch.save(Payload("os", "system", f"touch {mark}"), inner)
    for content in (inner.getvalue(), pickle.dumps(Storage(inner.getvalue()))):
        with pytest.raises((NCAError, pickle.UnpicklingError, RuntimeError)):
            pickling.load(io.BytesIO(pickle.dumps(Storage(content))))
    with pytest.raises(NCAError, match="asks to import"):
        pickling.load(io.BytesIO(pickle.dumps(Storage(inner.getvalue()))))
    assert not mark.exists()


@pytest.mark.parametrize("place", ["arguments", "state"])
def test_a_checkpoint_of_the_format_torch_runs_nothing(fail, tmp_path, mark, place):
    load = tmp_path / "nca"
    payload = Payload("os", "system", f"touch {mark}")
    models = {"mp_rank_00": {"model": trained(), **({"more": payload} if place == "state" else {})}}
    write_torch(load, models, **({"more": payload} if place == "arguments" else {}))
    before = digests(tmp_path)
    said = fail("transfer", "--load", load, "--save", tmp_path / "start")
    assert re.search(r"asks to import (posix|os)\.system", said)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("place", ["metadata", "common", "extra state"])
def test_a_checkpoint_of_the_format_torch_dist_runs_nothing(fail, tmp_path, mark, place):
    load = tmp_path / "nca"
    inner = program("torch", "serialization.os.system", f"touch {mark}")
    model = stacked(trained())
    if place == "extra state":
        model["decoder.layers.self_attention._extra_state/shard_0_1"] = torch.frombuffer(bytearray(inner), dtype=torch.uint8)
    write_dist(load, model)
    folder = load / "iter_0000007"
    if place == "metadata":
        (folder / ".metadata").write_bytes(inner)
    if place == "common":
        torch.save({"args": Payload("os", "system", f"touch {mark}")}, folder / "common.pt")
    before = digests(tmp_path)
    said = fail("transfer", "--load", load, "--save", tmp_path / "start")
    assert "asks to import" in said or "extra_state" in said
    assert digests(tmp_path) == before


PLACES = [
    "../../x.distcp",
    "/tmp/x.distcp",
    "a/b.distcp",
    "..",
    ".",
    "",
    ".metadata",
    "common.pt",
    "metadata.json",
    "a\0b",
    "a\nb",
    7,
]


@pytest.mark.parametrize("name", PLACES, ids=repr)
def test_a_piece_that_lies_elsewhere_is_refused(fail, tmp_path, name):
    load = tmp_path / "nca"
    write_dist(load, stacked(trained()))
    path = load / "iter_0000007" / ".metadata"
    metadata = dcp.FileSystemReader(path.parent).read_metadata()
    for info in metadata.storage_data.values():
        info.relative_path = name
    path.write_bytes(pickle.dumps(metadata))
    before = digests(tmp_path)
    said = fail("transfer", "--load", load, "--save", tmp_path / "start")
    assert "is no plain name of a file of pieces" in said
    assert digests(tmp_path) == before


@pytest.mark.parametrize(("field", "value"), [("offset", -1), ("length", -5), ("offset", "0"), ("length", 2**62)])
def test_a_piece_of_no_place_is_refused(fail, tmp_path, field, value):
    load = tmp_path / "nca"
    write_dist(load, stacked(trained()))
    path = load / "iter_0000007" / ".metadata"
    metadata = dcp.FileSystemReader(path.parent).read_metadata()
    for info in metadata.storage_data.values():
        setattr(info, field, value)
    path.write_bytes(pickle.dumps(metadata))
    before = digests(tmp_path)
    assert "Traceback" not in fail("transfer", "--load", load, "--save", tmp_path / "start")
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("latest_checkpointed_iteration.txt", b"9" * 5000),
        ("latest_checkpointed_iteration.txt", b"\xff\xfe"),
        ("latest_checkpointed_iteration.txt", "٧".encode()),
        ("latest_checkpointed_iteration.txt", b"../../etc"),
        ("iter_0000007/metadata.json", b"{"),
        ("iter_0000007/metadata.json", b"[]"),
        ("iter_0000007/metadata.json", b"\xff"),
        ("iter_0000007/metadata.json", b"[" * 100_000),
        ("iter_0000007/.metadata", b""),
        ("iter_0000007/.metadata", b"\x80\x04N."),
        ("iter_0000007/common.pt", b"PK"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_damaged_file_is_one_clear_error(fail, tmp_path, name, content):
    load = tmp_path / "nca"
    write_dist(load, stacked(trained()))
    (load / name).write_bytes(content)
    before = digests(tmp_path)
    assert len(fail("transfer", "--load", load, "--save", tmp_path / "start")) < 1000
    assert digests(tmp_path) == before
