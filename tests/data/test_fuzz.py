"""A slice of ``python -m benchmarks.fuzz``: random words, and random data paths through Megatron-Core's own builder."""

import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz import Tally, build_paths, read_entries
from megatron_nca.errors import ConfigError, NCAError


def test_random_entries_are_right_or_one_error():
    tally = read_entries(3000, random.Random(7))
    assert tally.failed == 0
    assert tally.outcomes["EntryError"] > tally.outcomes["right"] > 0


ROOT = Path(__file__).parents[2]


@pytest.fixture
def logged():
    yield
    logging.disable(logging.NOTSET)


def test_random_data_paths_are_built_or_one_error(tmp_path, logged, process_group):
    tally = build_paths(40, random.Random(8), tmp_path)
    assert tally.failed == 0
    assert tally.outcomes["right"] > 0


@pytest.mark.parametrize("case", [lambda: 1 / 0, lambda: (_ for _ in ()).throw(NCAError("b\nc"))])
def test_what_the_fuzz_would_find(case, capsys):
    """It would see another error, and a message of two lines."""
    tally = Tally()
    tally.run("case", case)
    assert tally.failed == 1
    assert "FAILED 'case'" in capsys.readouterr().out


def test_the_fuzz_would_find_much_memory():
    """In a process of its own: a peak is seen only above what was there before."""
    code = (
        "from benchmarks.fuzz import Tally; tally = Tally(); tally.run('case', lambda: bytearray(300_000_000)); "
        "print(tally.failed)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "1"


def test_a_value_that_no_terminal_shows_is_escaped():
    assert str(ConfigError("loss", "a\nb", "is wrong")) == r"loss=a\nb: is wrong"
