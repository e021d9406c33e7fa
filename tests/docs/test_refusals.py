"""What ``plan`` says of a launch that is refused is what the launch says, word for word; the table has a row for every error.

Those here are refused by their words, before Megatron-LM is imported; tests/contract/test_start_refusals.py has the others.
"""

import os
import subprocess
import sys

import pytest

from megatron_nca.rehearsal.checkouts import find_checkouts
from tests.docs.refusals import BY_WORDS, REFUSALS, VOCABULARY, told_by_launch, told_by_plan, write_texts
from tests.docs.test_errors import FRAGMENTS


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
