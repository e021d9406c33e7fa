"""Scripts of the examples: Python looks for what they import beside them first."""

import ast
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def imported(script):
    """Return the first words of all that a script imports."""
    found = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_no_script_stands_before_a_package_that_a_script_beside_it_imports():
    scripts = sorted(EXAMPLES.rglob("*.py"))
    assert len(scripts) > 10
    shadowed = [
        f"{script} imports {beside.name}"
        for script in scripts
        for beside in script.parent.glob("*.py")
        if beside.stem in imported(script) - {"megatron_nca", "examples"}
    ]
    assert shadowed == []
