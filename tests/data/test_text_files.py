"""Damaged texts, and parts of a text that hold nothing: refused before Megatron reads or counts them."""

import shutil
import struct
from pathlib import Path

import pytest

from megatron_nca.errors import CurriculumError
from tests.conftest import write_text


@pytest.fixture
def damaged(text, tmp_path):
    """A copy of the text to spoil."""
    for ending in (".idx", ".bin"):
        shutil.copy(f"{text}{ending}", tmp_path / f"a{ending}")
    return str(tmp_path / "a")


def spoil(path, change):
    path = Path(path)
    path.write_bytes(change(path.read_bytes()))


def with_place(data, place):
    """The index with another place of its second sequence; it has 300."""
    begin = 34 + 4 * 300 + 8
    return data[:begin] + struct.pack("<q", place) + data[begin + 8 :]


DAMAGE = {
    "empty": (".idx", lambda data: b"", "is no index of a tokenised text"),
    "header alone": (".idx", lambda data: data[:34], "is cut short: 34 bytes"),
    "half": (".idx", lambda data: data[: len(data) // 2], "is cut short"),
    "one byte less": (".idx", lambda data: data[:-1], "is cut short"),
    "something else": (".idx", lambda data: b"PK" + data[2:], "is no index of a tokenised text"),
    "version": (".idx", lambda data: data[:9] + struct.pack("<Q", 9) + data[17:], "version 9"),
    "data type": (".idx", lambda data: data[:17] + b"\x63" + data[18:], "data type 99"),
    "enormous counts": (".idx", lambda data: data[:18] + b"\xff" * 16 + data[34:], "is cut short"),
    "no sequence": (".idx", lambda data: data[:18] + bytes(16) + data[34:], "holds no sequence"),
    "a negative length": (".idx", lambda data: data[:34] + struct.pack("<i", -5) + data[38:], "a length or at a place that no"),
    "an enormous length": (".idx", lambda data: data[:34] + b"\xff\xff\xff\x7f" + data[38:], r"a\.bin on \S+ is cut short"),
    "a negative place": (".idx", lambda data: with_place(data, -8), "a length or at a place that no"),
    "an enormous place": (".idx", lambda data: with_place(data, 2**62), "a length or at a place that no"),
    "a place behind the end": (".idx", lambda data: with_place(data, 2**40), r"a\.bin on \S+ is cut short"),
    "lengths of nothing": (".idx", lambda data: data[:34] + bytes(4 * 300) + data[34 + 4 * 300 :], "holds no token"),
    "tokens": (".bin", lambda data: data[:-4], r"a\.bin on \S+ is cut short"),
    "no tokens": (".bin", lambda data: b"", r"a\.bin on \S+ is cut short: 0 bytes"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("words", [["nca:tokens=2560"], ["phase:"]])
def test_a_damaged_text_is_refused_with_one_line(build, damaged, kind, words):
    ending, change, problem = DAMAGE[kind]
    spoil(damaged + ending, change)
    with pytest.raises(CurriculumError, match=problem) as refused:
        build([*words, damaged])
    assert "\n" not in str(refused.value)
    assert "copy or tokenise the text again" in str(refused.value)


@pytest.mark.parametrize("split", ["99,1,0", "1,99,0", "1,1,98"])
@pytest.mark.parametrize("words", [["nca:tokens=2560"], ["phase:"]])
def test_a_part_of_a_text_that_rounds_to_nothing_is_refused(build, tmp_path, split, words):
    """Megatron would count its epochs without an end."""
    few = write_text(tmp_path / "few", 8)
    with pytest.raises(CurriculumError, match=r"holds 8 sequences, of which --split leaves .* to the (train|valid) split"):
        build([*words, few], split=split)


def test_a_part_that_is_not_asked_for_may_be_empty(build, tmp_path):
    few = write_text(tmp_path / "few", 8)
    train, valid, test = build(["nca:tokens=2560", few], split="100,0,0", sizes=(30, 0, 0))
    assert len(train) == 30
    assert valid is None
    assert test is None
