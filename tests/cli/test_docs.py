"""Commands in the documentation and in helps are ones that the program takes."""

import re
import shlex
from pathlib import Path

import pytest

from megatron_nca.cli.main import make_parser
from megatron_nca.data.entry import is_nca, parse_entry

ROOT = Path(__file__).parents[2]
PAGES = ("docs/cli.md", "docs/choosing-a-band.md", "docs/transfer.md")


def in_blocks(page):
    blocks = re.findall(r"^```\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def in_helps():
    actions = make_parser()._subparsers._group_actions
    texts = [parser.epilog for action in actions for parser in action.choices.values()]
    return [line.strip() for text in texts for line in text.replace("\\\n", " ").splitlines()]


def commands():
    lines = [line for page in PAGES for line in in_blocks(page)] + in_helps()
    found = [line for line in lines if line.startswith("megatron-nca ") and "COMMAND" not in line]
    assert len(found) > 30
    return sorted(set(found))


@pytest.mark.parametrize("line", commands())
def test_a_documented_command_is_one_that_the_program_takes(line):
    words = shlex.split(line, comments=True)[1:]
    make_parser().parse_args(words)
    for word in words:
        if is_nca(word) and "auto:" not in word:
            parse_entry(word)


@pytest.mark.parametrize("page", PAGES)
def test_pictures_and_pages_that_a_page_shows_are_there(page):
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (ROOT / "docs" / target).is_file()] == []
