"""Code blocks of the documentation, and a checker for each kind of command in them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_nca.cli.launch.reading import add_launch_arguments
from megatron_nca.cli.launch.tokenizer import add_tokenizer_of_launch
from megatron_nca.cli.main import make_parser
from megatron_nca.data.entry import is_nca, parse_entry
from tests.project import project

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *sorted(str(page.relative_to(ROOT)) for page in (
    *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "patches").rglob("*.md"))))  # fmt: skip
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>unchecked|not run): (?P<reason>.+?) -->\n)?"
    r"^(?P<fence>```+|~~~+)(?P<kind>[^\n]*)\n(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)
ELLIPSES = ("...", "…", "[...]")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Path from the repository's root.
        line: Number of its first line of text, from 1.
        kind: After the fence, such as ``python``; empty for a shell.
        text: What it holds.
        mark: ``unchecked``, ``not run`` or None: what a comment above it asks for.
    """

    page: str
    line: int
    kind: str
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        source = (ROOT / page).read_text(encoding="utf-8")
        for match in FENCE.finditer(source):
            line = source.count("\n", 0, match.start("text")) + 1
            found.append(Block(page, line, match["kind"].strip(), match["text"], match["mark"]))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command: continued lines joined, comments and assignments before it left out."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:&&|\|\|?|;)\s", line.removeprefix("$ ")):
            words = shlex.split(part, comments=True)
            while words and (words[0] in ("export", "sudo", "env") or re.fullmatch(r"[A-Za-z_]\w*=.*", words[0])):
                words = words[1:]
            if words:
                yield words


def check_command(words: list[str]) -> None:
    """Check a command with the parser that will read it.

    Raises:
        AssertionError: It is wrong, or of a program that nobody checks here.
    """
    check_entries(words)
    program, rest = Path(words[0]).name, words[1:]
    assert program in CHECKERS, f"no checker for {program!r}; write one, or put '<!-- unchecked: reason -->' above the block"
    CHECKERS[program](rest)


def check_entries(words: list[str]) -> None:
    """Parse every ``nca:`` entry among some words, those in a list of overrides too."""
    for word in words:
        for entry in re.findall(r"['\"](nca:[^'\"]*)['\"]", word) or [word]:
            if is_nca(entry) and "auto:" not in entry:
                parse_entry(entry)


def _megatron_nca(words: list[str]) -> None:
    if words[:1] == ["COMMAND"]:
        return
    _accepts(make_parser(), words)


def _accepts(parser: argparse.ArgumentParser, words: list[str]) -> None:
    try:
        parser.parse_args(words)
    except SystemExit as stopped:
        assert not stopped.code, f"{parser.prog} does not take {shlex.join(words)}"


def _make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if "=" not in word:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), f"make has no target {word}"


def _python(words: list[str]) -> None:
    if words[:1] != ["-m"]:
        assert (ROOT / words[0]).is_file(), f"there is no {words[0]}"
        return
    module, rest = words[1], words[2:]
    if module == "megatron_nca":
        _launch(rest)
    elif module == "pip":
        _pip(rest)
    elif module == "pytest":
        _pytest(rest)
    elif module == "megatron_nca.cli":
        _megatron_nca(rest)
    else:
        assert importlib.util.find_spec(module) is not None, f"there is no module {module}"


def _torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    parser = get_args_parser()
    taken = parser.parse_args([word for word in words if word not in ELLIPSES])
    assert taken.training_script == "megatron_nca" or Path(taken.training_script).suffix == ".py", taken.training_script
    rest = taken.training_script_args
    _launch(rest if taken.module else [taken.training_script, *rest])


def _launch(words: list[str]) -> None:
    """A launch: a script, then Megatron-LM's flags and ours; ours and those that the plan reads must be right."""
    script, flags = words[0], words[1:]
    assert script.endswith(".py") or script in ("SCRIPT", "--help"), f"{script} is no script"
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_launch_arguments(parser)
    add_tokenizer_of_launch(parser)
    try:
        _, unknown = parser.parse_known_args([word for word in flags if word not in ELLIPSES])
    except SystemExit:
        raise AssertionError(f"a launch does not take {shlex.join(flags)}") from None
    assert [word for word in unknown if word.startswith("--nca")] == []


def _pip(words: list[str]) -> None:
    assert words[0] in ("install", "list", "download"), words
    extras = project()["optional-dependencies"]
    for word in words[1:]:
        for extra in re.findall(r"^(?:megatron-nca|\.)\[([\w,]+)\]", word):
            for name in extra.split(","):
                assert name in extras, f"there is no extra {name}"


def _pytest(words: list[str]) -> None:
    for word in words:
        assert word.startswith("-") or (ROOT / word.partition("::")[0]).exists(), f"there is no {word}"


def _files_of_ours(words: list[str]) -> None:
    """A program of others: what it names in this repository must be there."""
    for word in words:
        for path in re.findall(r"(?:^|=|megatron-nca/)((?:examples|patches|docs|tests)/[\w./-]+)", word):
            assert (ROOT / path).exists(), f"there is no {path}"


def _nothing(words: list[str]) -> None:
    """A program of others that knows nothing of us."""


CHECKERS: dict[str, Callable[[list[str]], None]] = {
    "megatron-nca": _megatron_nca,
    "make": _make,
    "python": _python,
    "python3": _python,
    "torchrun": _torchrun,
    "pip": _pip,
    "pytest": _pytest,
    "git": _files_of_ours,
    "sbatch": _files_of_ours,
    "bash": _files_of_ours,
    "nemo": _files_of_ours,
    "cd": _nothing,
}


def check_json(text: str) -> None:
    """Parse JSON; entries in it too."""

    def walk(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield from value.split()
        elif isinstance(value, (list, dict)):
            for item in value.values() if isinstance(value, dict) else value:
                yield from walk(item)

    check_entries(list(walk(json.loads(text))))
