"""An error that one rank alone meets, on two ranks of every stack."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.drivers import DRIVERS

PROJECT = Path(__file__).parents[2]
PATIENCE = 120
SOON = 20
"""Seconds; a collective that one rank does not join would wait for half an hour."""


@pytest.fixture(scope="module")
def refusals(text, tmp_path_factory):
    """Stack -> for each rank the seconds that it took and the error."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.contract.rank", str(folder), str(rank), text], cwd=PROJECT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        printed = [rank.communicate(timeout=PATIENCE) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    found = {}
    for output, errors in printed:
        for line in output.splitlines():
            name, *rest = line.split("\t")
            if name in DRIVERS:
                found.setdefault(name, []).append((float(rest[0]), rest[1]))
        assert set(found) == set(DRIVERS), errors
    return found


@pytest.mark.parametrize("name", DRIVERS)
def test_a_text_that_one_node_lacks_is_an_error_on_every_rank_at_once(refusals, name):
    (there, reported), (missing, met) = refusals[name]
    assert met.startswith("CurriculumError: data path: 'text' has no file text.idx on ")
    assert reported.startswith("CurriculumError: rank 1 reports: data path: 'text' has no file text.idx on ")
    assert max(there, missing) < SOON
