"""Records that no run has written: each value of one made something else, through the reader and through `plan --checkpoint`.

Every one is read or refused, in one short line, without work that has no end and within 200 MB; see docs/security.md.
"""

import copy
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.fuzz import peak_memory
from megatron_nca.cli.main import main
from megatron_nca.data.amending import Amendment, amend, history_of, replay
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.data.run import Datasets
from megatron_nca.errors import NCAError
from megatron_nca.training.record import Record, unpacked

SEQUENCE = 128
SECONDS, MEGABYTES, CHARACTERS = 60.0, 200.0, 2000
"""Seconds are many times what it takes: what is looked for is work without an end, not speed."""

VALUES = {
    "negative": -1,
    "zero": 0,
    "64 bits": 2**63,
    "100 bits": 10**30,
    "1,300 bits": 10**400,
    "not a number": float("nan"),
    "infinity": float("inf"),
    "nothing": None,
    "truth": True,
    "fraction": 1.5,
    "no text": "",
    "NUL": "a\0b",
    "two lines": "a\nb",
    "surrogate": "\ud800",
    "escape": "\x1b[2J",
    "long text": "x" * 100_000,
    "no list": [],
    "no mapping": {},
    "100,000 numbers": [1] * 100_000,
    "3,000 phases": ["phase:tokens=1"] * 3000,
    "negative in a list": [-5],
    "100 bits in a list": [10**30],
    "not a number in a list": [float("nan")],
    "a path": ["../../etc/passwd"],
    "a path and a line": ["nca:tokens=5", "/etc/passwd\nX"],
    "an empty phase": ["phase:"],
}


def read(words):
    return read_blend((words.split(), None))


@pytest.fixture(scope="module")
def record():
    """A run of two texts, changed at sample 160 to one of three."""
    plan = plan_training(
        read("nca:tokens=10240,grid=4 phase:tokens=1M 0.5 /a 0.5 /b phase: /a"), SEQUENCE, 800, BatchBoundaries(8)
    )
    history = history_of(plan)
    plan = amend(plan, Amendment(read("phase: 0.25 /a 0.75 /c"), 160, {}), 800, BatchBoundaries(8, 160))
    return Record.of(plan, Datasets(None, 1234, "tokens", ("", ""), history_of(plan, history)), 240, True).state_dict()


def places(value, place=()):
    """Every place in nested values."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*place, key))


def changed(value, place, other):
    if not place:
        return other
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = other
    return value


@pytest.mark.parametrize("kind", VALUES)
def test_any_value_at_any_place_is_read_or_refused_in_one_short_line(record, kind):
    refused, before = 0, peak_memory()
    for place in places(record):
        begin = time.process_time()
        try:
            found = Record.from_state_dict(changed(record, place, VALUES[kind]))
            if found.history is not None:
                plan = replay(found.history, found.sequence_length)
                plan.schedule.counts(found.consumed or 0)
        except NCAError as error:
            refused += 1
            assert "\n" not in str(error), place
            assert len(str(error)) < CHARACTERS, place
        assert time.process_time() - begin < SECONDS, place
    assert refused > 20
    assert peak_memory() - before < MEGABYTES


@pytest.mark.parametrize("name", ["sequence_length", "samples", "consumed", "given", "texts", "history"])
@pytest.mark.parametrize("kind", VALUES)
def test_plan_tells_of_it_in_one_line(record, kind, name, tmp_path, capsys):
    torch.save({"args": SimpleNamespace(nca_curriculum=changed(record, (name,), VALUES[kind]))}, tmp_path / "common.pt")
    files = sorted(tmp_path.iterdir())
    code = main(["plan", "--checkpoint", str(tmp_path)])
    written = capsys.readouterr()
    assert code in (0, 1, 2)
    assert written.err.count("\n") == (code > 0)
    assert len(written.err) < CHARACTERS
    assert "\x1b" not in written.err + written.out
    assert sorted(tmp_path.iterdir()) == files


PACKED = {
    "nested a hundred thousand deep": b"[" * 100_000,
    "5,000 digits": b'{"version": ' + b"9" * 5000 + b"}",
    "cut short": b'{"version": 3, "hist',
    "no text": bytes(range(256)),
    "nothing": b"",
    "another kind": b"7",
    "not a number": b'{"version": NaN}',
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_tensor_that_holds_no_record_is_refused(kind):
    kept = torch.frombuffer(bytearray(PACKED[kind]), dtype=torch.uint8) if PACKED[kind] else torch.zeros(0, dtype=torch.uint8)
    with pytest.raises(NCAError, match="the checkpoint's record of its curriculum") as refused:
        Record.from_state_dict(unpacked(kept))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kept", [torch.tensor([1.5, float("nan")]), torch.tensor([-1, 300]), torch.zeros(2, 2), "text", None])
def test_a_value_that_is_no_tensor_of_bytes_is_refused(kept):
    with pytest.raises(NCAError, match="is damaged: it is"):
        Record.from_state_dict(unpacked(kept))


def test_the_record_itself_is_read(record):
    assert Record.from_state_dict(json.loads(json.dumps(record))).consumed == 240
    assert not Path("/a.idx").exists()
