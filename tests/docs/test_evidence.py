"""The tables of docs/evidence.md are those of the stored results, and the figures elsewhere are theirs."""

from pathlib import Path

import pytest

pytest.importorskip("megatron.core", reason="needs megatron-core")

from benchmarks.science import first_steps
from benchmarks.science.arms import arms
from benchmarks.science.table import along_the_text, lines, read_results

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results():
    return read_results()


def rows(table):
    return [line for line in table if not line.startswith("|---")]


def test_every_arm_has_run_with_every_seed(results):
    assert {arm.name: tuple(sorted(results[arm.name])) for arm in arms()} == {arm.name: arm.seeds for arm in arms()}


def test_the_tables_are_those_of_the_results(results):
    told = (ROOT / "docs/evidence.md").read_text(encoding="utf-8").splitlines()
    assert not [row for row in rows([*lines(results), *along_the_text(results), *first_steps.lines()]) if row not in told]


def test_the_readmes_figure_is_the_tables(results):
    (row,) = [line for line in lines(results) if line.startswith("| 1M NCA, then 4M text |")]
    change = row.split(" | ")[5]
    assert change.startswith("-")
    for page in ("README.md", "docs/index.md"):
        assert f"{change.removeprefix('-')} %" in (ROOT / page).read_text(encoding="utf-8"), page
