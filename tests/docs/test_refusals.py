"""What ``plan`` says of a launch that is refused is what the launch says, word for word; the table has a row for every error.

Those here are refused by their words, before Megatron-LM is imported; tests/contract/test_start_refusals.py has the others.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_nca.cli.main import main
from megatron_nca.errors import NCAError
from megatron_nca.rehearsal.checkouts import find_checkouts
from megatron_nca.training.early import refuse_early
from tests.docs.refusals import (
    BY_WORDS,
    LISTED_BESIDES,
    REFUSALS,
    TAKEN,
    VOCABULARY,
    told_by_launch,
    told_by_plan,
    write_texts,
)
from tests.docs.test_errors import FRAGMENTS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Megatron-LM's, or one that would start it, where there is none."""
    for checkout in find_checkouts():
        return checkout.path / "pretrain_gpt.py"
    stand_in = tmp_path_factory.mktemp("script") / "pretrain_gpt.py"
    stand_in.write_text("raise SystemExit('megatron.training would be imported here')\n")
    return stand_in


def test_every_row_of_the_docs_is_in_the_table():
    assert set(REFUSALS) == set(FRAGMENTS)


def test_every_flag_that_the_page_of_launches_lists_is_tried():
    listed = (DOCS / "launches.md").read_text(encoding="utf-8").partition("## What is refused")[2].partition("\n- ")[2]
    cases = (*BY_WORDS.values(), *LISTED_BESIDES.values(), *TAKEN.values())
    assert set(re.findall(r"--[\w-]+", listed)) <= {flag for case in cases for flag in case.flags}


@pytest.mark.parametrize("flag", LISTED_BESIDES)
def test_plan_says_what_the_words_are_refused_for(flag, texts):
    with pytest.raises(NCAError) as refused:
        refuse_early(LISTED_BESIDES[flag].words(texts))
    assert str(refused.value).startswith(flag)
    assert told_by_plan(LISTED_BESIDES[flag], texts) == (str(refused.value), 1)


@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_what_a_launch_takes_is_a_good_plan(case, texts, capsys):
    words = case.words(texts)
    refuse_early(words)
    assert main(["plan", "--json", "--", "pretrain_gpt.py", "--vocab-size", str(VOCABULARY), *words]) == 0
    assert json.loads(capsys.readouterr().out)["good"]


@pytest.mark.parametrize("fragment", BY_WORDS)
def test_plan_says_what_the_launch_says(fragment, texts, script):
    case = BY_WORDS[fragment]
    words = [sys.executable, "-m", "megatron_nca", str(script), "--vocab-size", str(VOCABULARY), *case.words(texts)]
    launch = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "RANK": "0"})
    assert launch.returncode == 1
    [line] = launch.stderr.splitlines()
    assert fragment in line
    message, code = told_by_plan(case, texts)
    assert message == told_by_launch(line)
    assert code in (1, 2)
