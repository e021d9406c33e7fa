"""Arrows between the folders of `megatron_nca` point one way, no modules import each other in a circle, adapters stay thin."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import megatron_nca

PACKAGE = Path(megatron_nca.__file__).parent
BELOW = {
    "interfaces": set(),
    "automaton": set(),
    "data": {"interfaces", "automaton"},
    "training": {"interfaces", "automaton", "data"},
    "checkpoints": {"interfaces", "automaton", "data", "training"},
    "frameworks": {"interfaces", "automaton", "data", "training", "checkpoints"},
    "rehearsal": {"interfaces", "automaton", "data", "training", "checkpoints", "frameworks"},
    "cli": {"interfaces", "automaton", "data", "training", "checkpoints", "frameworks", "rehearsal"},
}
"""What each folder may import when it is imported itself."""

FRAMEWORKS, ADAPTER, FILE = 1_100, 200, 400
"""Lines at most of all adapters, of one of them, and of any other file."""


def module_name(file):
    return ".".join(("megatron_nca", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_name(file): file for file in PACKAGE.rglob("*.py")}


def imported(body):
    """Names of modules that are imported with a module, those inside functions and for type checkers left out."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module
        elif isinstance(node, ast.Try):
            yield from imported(
                [*node.body, *node.orelse, *node.finalbody, *(line for way in node.handlers for line in way.body)]
            )
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from imported([*node.body, *node.orelse])
        elif isinstance(node, (ast.With, ast.ClassDef)):
            yield from imported(node.body)


def arrows(name):
    """Modules of the package that a module imports; `from a import b` means the module `a.b` where there is one."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)), f"{name}: imports are absolute"
    found = {one for one in imported(tree.body) if one in MODULES} - {name}
    # `from package import module` means the module, whatever else the package's own file brings.
    packages = {one.rpartition(".")[0] for one in found if MODULES[one].name != "__init__.py"}
    return {one for one in found if MODULES[one].name != "__init__.py" or one not in packages}


def folder(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else None


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: arrows(name) for name in MODULES}
    assert sum(map(len, graph.values())) > len(MODULES)
    graphlib.TopologicalSorter(graph).prepare()


def test_arrows_between_folders_point_down():
    found = {(folder(name), folder(target)) for name in MODULES for target in arrows(name)}
    found = {(above, below) for above, below in found if above and below and above != below}
    assert ("frameworks", "training") in found
    assert {(above, below) for above, below in found if below not in BELOW[above]} == set()


def test_every_folder_has_its_place():
    assert {folder(name) for name in MODULES} - {None} == set(BELOW)


def test_adapters_are_thin():
    lines = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in (PACKAGE / "frameworks").glob("*.py")}
    assert max(lines.values()) <= ADAPTER
    assert sum(lines.values()) <= FRAMEWORKS


def test_adapters_say_what_they_need_of_a_framework():
    """What is passed on unread is an ``object``; what is read has a protocol of ``interfaces``."""
    used = [
        f"{file.name}:{node.lineno}"
        for file in (PACKAGE / "frameworks").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "Any") or (isinstance(node, ast.Attribute) and node.attr == "Any")
    ]
    assert used == []


def test_every_attribute_of_a_protocol_is_explained():
    found = 0
    for file in (PACKAGE / "interfaces").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                told = re.findall(r"^ {8}(\w+): \S", ast.get_docstring(node, clean=False) or "", flags=re.MULTILINE)
                names = [line.target.id for line in node.body if isinstance(line, ast.AnnAssign)]
                assert told == [name for name in names if not re.match(r"_[a-z]", name)], f"{file.name}: {node.name}"
                found += len(names)
    assert found > 50


@pytest.mark.parametrize("folder", ["megatron_nca", "tests", "benchmarks", "examples"])
def test_files_are_short(folder):
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in (PACKAGE.parent / folder).rglob("*.py")}
    assert lines
    assert {str(file): count for file, count in lines.items() if count > FILE} == {}


CONTRIBUTING = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_map_of_contributing_has_every_folder_and_no_other():
    assert sorted(re.findall(r"^  (\w+)/ ", CONTRIBUTING, flags=re.MULTILINE)) == sorted(BELOW)


def test_files_that_contributing_names_are_there():
    named = re.findall(r"`((?:megatron_nca|tests|docs)/[\w./-]+)`", CONTRIBUTING)
    assert len(named) > 15
    assert [name for name in named if not (PACKAGE.parent / name).exists()] == []


def test_ten_questions_are_answered_by_names():
    section = CONTRIBUTING.split("### Ten questions")[1].split("###")[0]
    assert len(re.findall(r"^\| [^|]+\? \| `", section, flags=re.MULTILINE)) == 10
