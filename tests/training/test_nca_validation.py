"""Validation on NCA of held-out rules, of a real GPT that has learnt nothing."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

VOCABULARY = 128
ENTRIES = ("nca:tokens=640,grid=4,colors=3,gzip=none,trajectory=64", "nca:tokens=640,grid=4,colors=2,gzip=none,trajectory=64")


@pytest.fixture(scope="module")
def found():
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.validated", str(VOCABULARY), *ENTRIES]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_that_knows_nothing_guesses_among_all_ids(found):
    for scalars in found["scalars"]:
        assert scalars["nca/valid-loss"] == pytest.approx(math.log(VOCABULARY), abs=0.3)
        assert 0 <= scalars["nca/valid-cell-accuracy"] < 0.6


def test_each_entry_has_a_line_with_accuracies_by_frames_seen(found):
    assert len(found["lines"]) == len(ENTRIES)
    for entry, line in zip(ENTRIES, found["lines"], strict=True):
        assert line.startswith(f"NCA of held-out rules, {entry} | loss: ")
        assert "| by frames seen: 1: " in line


def test_accuracies_are_scalars_at_numbers_of_frames_that_double(found):
    names = [name for name in found["scalars"][0] if "after" in name]
    # A sequence of 64 holds ten frames of six tokens, the last of which sees nine before it, and four tokens of an eleventh.
    assert names == [f"nca/valid-cell-accuracy-after-{frames}-frames" for frames in (1, 2, 4, 8, 10)]


def test_it_reads_the_same_samples_again_and_leaves_the_model_as_it_was(found):
    assert found["repeats"]
    assert found["is_training"]
    assert found["is_unchanged"]
