"""Files that a launch names and a stranger may have written, through `plan` and `build`: one line each, nothing else written.

See docs/security.md. Checkpoints are tests/cli/test_crafted.py's, records tests/data/test_hostile_records.py's.
"""

import json
import time
from unittest import mock

import pytest

from benchmarks.fuzz import peak_memory
from megatron_nca.data import corpus
from megatron_nca.errors import CorpusError

SECONDS, MEGABYTES, CHARACTERS = 60.0, 200.0, 2000
"""Seconds are many times what it takes: what is looked for is work without an end, not speed."""
LAUNCH = ("--seq-length", 1024, "--global-batch-size", 8, "--train-samples", 10_000)
DEEP = "[" * 100_000


def added(ids="0", vocab='{"a": 1}'):
    return f'{{"model": {{"vocab": {vocab}}}, "added_tokens": [{{"content": "<|endoftext|>", "id": {ids}}}]}}'


@pytest.fixture
def refused(fail, tmp_path):
    """Call on bad input; returns the line, after a look at its length, the time, the memory and what was written."""

    def call(*arguments, code=2):
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        before, begin = peak_memory(), time.process_time()
        said = fail(*arguments, code=code)
        assert time.process_time() - begin < SECONDS
        assert peak_memory() - before < MEGABYTES
        assert said.count("\n") == 1
        assert len(said) < CHARACTERS
        assert "\x1b" not in said
        assert "\0" not in said
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
        return said

    return call


TOKENIZERS = {
    "nested": DEEP,
    "a list": "[]",
    "NUL": "\0",
    "cut short": '{"model": {"vocab": {"a"',
    "no vocabulary": '{"model": {"vocab": null}, "added_tokens": []}',
    "a number": added(vocab="7"),
    "ids of text": added(vocab='{"a": "x"}'),
    "ids in lists": added(vocab='{"a": [[]]}'),
    "infinite": added(vocab='{"a": 1e999}'),
    "not a number": added(vocab='{"a": NaN}'),
    "fractions": added(vocab='{"a": 2.5}'),
    "negative": added(vocab='{"a": -5}'),
    "4,000 digits": added(vocab='{"a": ' + "9" * 4000 + "}"),
    "6,000 digits": added(vocab='{"a": ' + "9" * 6000 + "}"),
    "truth": added(vocab='{"a": true}'),
    "an infinite special id": added(ids="1e999"),
    "a negative special id": added(ids="-7"),
    "special ids of text": '{"model": {"vocab": {"a": 1}}, "added_tokens": "abc"}',
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_that_is_none_is_refused(refused, tmp_path, kind):
    path = tmp_path / "tokenizer.json"
    path.write_text(TOKENIZERS[kind])
    said = refused("plan", "--tokenizer", path, "--data-path", "nca:tokens=1M", "/x", *LAUNCH)
    assert "is no tokenizer.json of Hugging Face" in said


def split(train):
    return json.dumps({"train": train, "valid": None, "test": None})


PER_SPLIT = {
    "nested": (DEEP, "is no JSON"),
    "cut short": ('{"train": ["a"', "is no JSON"),
    "6,000 digits": ('{"train": ' + "9" * 6000 + "}", "is no JSON"),
    "no splits": ('{"train": 1}', "must be an object with the keys"),
    "numbers": ('{"train": ["a", 1], "valid": null, "test": null}', "must be a string, or a list of strings"),
    "lists in lists": ('{"train": [["nca:"]], "valid": null, "test": null}', "must be a string, or a list of strings"),
    "infinite weights": (split(["1e999", "nca:", "0.5", "/a"]), "a weight must be"),
    "an escape": (split(["nca:tokens=1M", "nca:\x1b[2J", "/a"]), "nca:"),
}


@pytest.mark.parametrize("kind", PER_SPLIT)
def test_data_of_each_split_that_are_none_are_refused(refused, tmp_path, kind):
    content, problem = PER_SPLIT[kind]
    path = tmp_path / "splits.json"
    path.write_text(content)
    code = 2 if problem.startswith(("is no", "must be")) else 1
    assert problem in refused("plan", "--per-split-data-args-path", path, *LAUNCH, code=code)


WORDS = {
    "bytes": (bytes(range(256)), "cannot be read"),
    "two million words": (b"nca:tokens=x " * 2_000_000, "is not a count"),
}


@pytest.mark.parametrize("kind", WORDS)
def test_a_file_of_data_paths_that_holds_none_is_refused(refused, tmp_path, kind):
    content, problem = WORDS[kind]
    path = tmp_path / "words"
    path.write_bytes(content)
    code = 1 if content.isascii() else 2
    assert problem in refused("plan", "--data-args-path", path, *LAUNCH, code=code)


@pytest.mark.parametrize("part", ["x", "-1", "99999999999999999999", "1.5", "٣", "9" * 5000, "\0"])
def test_a_journal_that_build_did_not_write_is_refused(command, fail, tmp_path, part):
    """A corpus that was cut off, and a part in its journal that it does not have."""
    settings = ("build", "nca:grid=4,colors=3,gzip=none", "--tokens", "20K", "--output", tmp_path / "made", "--vocab-size", 300)
    with mock.patch.object(corpus, "_finish", side_effect=CorpusError("cut off")):
        assert command(*settings)[0] == 2
    journal = tmp_path / "made.building"
    journal.write_bytes(journal.read_bytes() + f"{part}\n".encode())
    said = fail(*settings).splitlines()[-1]
    assert "so something else wrote it; remove" in said
    assert len(said) < CHARACTERS
