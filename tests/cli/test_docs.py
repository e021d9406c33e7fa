"""Every code block of README and docs is right: shells parsed by the real parsers, Python run, entries parsed.

A block that cannot be checked fails, unless the line above it says why: ``<!-- unchecked: reason -->``; a Python block that
can only be compiled says ``<!-- not run: reason -->``. Blocks of directives are checked by the build of the site.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from megatron_nca.cli.main import make_parser
from megatron_nca.data.entry import parse_entry
from tests.cli.blocks import PAGES, ROOT, blocks, check_command, check_json, commands

ALL = [block for block in blocks() if block.mark != "unchecked" and not block.kind.startswith("{")]
SHELL = [block for block in ALL if block.kind in ("", "bash", "sh", "shell", "console")]
PYTHON = [block for block in ALL if block.kind in ("python", "py")]
JSON = [block for block in ALL if block.kind == "json"]
OUTSIDE = ("nemo", "lightning", "transformer_engine", "megatron.bridge")
"""Packages that the tests' own environment does not have."""


def in_helps():
    actions: Any = make_parser()._subparsers._group_actions
    texts = [parser.epilog for action in actions for parser in action.choices.values()]
    lines = [line for text in texts for line in text.replace("\\\n", " ").splitlines() if "megatron-nca " in line]
    assert len(lines) > 15
    return [line.strip() for line in lines if line.strip().startswith("megatron-nca ")]


def of_a_tree(block):
    """A drawing of folders, not commands."""
    return block.text.lstrip().startswith("megatron_nca/\n")


@pytest.mark.parametrize("block", [block for block in SHELL if not of_a_tree(block)], ids=str)
def test_a_documented_command_is_one_that_its_program_takes(block):
    for words in commands(block.text):
        if words[:2] != ["torchrun", "..."]:
            check_command(words)


@pytest.mark.parametrize("block", [block for block in SHELL if of_a_tree(block)], ids=str)
def test_a_drawing_of_folders_is_of_folders_that_are_there(block):
    for name in re.findall(r"^  (\w+)/ ", block.text, re.MULTILINE):
        assert (ROOT / "megatron_nca" / name).is_dir()


@pytest.mark.parametrize("line", in_helps())
def test_an_example_in_a_help_is_one_that_the_program_takes(line):
    for words in commands(line):
        check_command(words)


def outside(source):
    modules = re.findall(r"^(?:from|import) ([\w.]+)", source, re.MULTILINE)
    return [name for name in modules if any(name.startswith(package) and not is_installed(package) for package in OUTSIDE)]


def is_installed(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_runs(block):
    compile(block.text, str(block), "exec")
    if block.mark == "not run":
        return
    if missing := outside(block.text):
        pytest.skip(f"compiled alone, since {missing[0]} is not installed here")
    ran = subprocess.run([sys.executable, "-c", block.text], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("block", JSON, ids=str)
def test_a_json_block_is_json(block):
    check_json(block.text)


def test_no_block_is_of_a_kind_that_nobody_checks():
    checked = {id(block) for block in (*SHELL, *PYTHON, *JSON)}
    assert [f"{block} is {block.kind}" for block in ALL if id(block) not in checked] == []
    assert len(ALL) > 40


def entries_in_prose(page):
    """Entries in backticks, those that stand for a form left out."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = [word for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) for word in span.split()]
    return {word.strip("'\"[],") for word in spans if word.strip("'\"[").startswith("nca:")}


@pytest.mark.parametrize("page", PAGES)
def test_entries_in_the_text_are_entries(page):
    for entry in entries_in_prose(page):
        if not re.search(r"key=|\.\.\.|auto:|=[A-Z]", entry):
            parse_entry(entry)


@pytest.mark.parametrize("page", PAGES)
def test_pictures_and_pages_that_a_page_shows_are_there(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not ((ROOT / page).parent / target).exists()] == []


def test_pictures_have_words_for_those_who_do_not_see_them():
    for page in PAGES:
        for words in re.findall(r"!\[([^\]]*)\]", (ROOT / page).read_text(encoding="utf-8")):
            assert len(words) > 5, page


WRONG = (
    "megatron-nca plan --no-such-flag",
    "megatron-nca preview nca:colours=3",
    "make no-such-target",
    "cowsay moo",
    "torchrun -m megatron_nca pretrain_gpt.py --nca-no-such-flag",
    "python -m megatron_nca pretrain_gpt.py --data-path nca:tokens=1X /a",
    "pip install megatron-nca[nothing]",
    "pytest tests/no_such_folder",
)


def test_a_wrong_command_is_found():
    for line in WRONG:
        with pytest.raises((AssertionError, ValueError)):
            check_command(shlex.split(line))
