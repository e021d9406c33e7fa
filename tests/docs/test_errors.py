"""docs/operations.md knows every error of the process, the data, the transition and Megatron-LM, and knows no other."""

import ast
import re
from pathlib import Path

import pytest

import megatron_nca
from megatron_nca import errors
from megatron_nca.frameworks import bridge_launch, megatron_lm
from megatron_nca.training.options import OPTIONS

PACKAGE = Path(megatron_nca.__file__).parent
PAGE = (PACKAGE.parent / "docs/operations.md").read_text(encoding="utf-8").partition("## Errors")[2]
FRAGMENTS = [row[1] for row in re.finditer(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)]
CLASSES = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.NCAError)}
COVERED = ("automaton", "data", "training", "frameworks/seams.py", "frameworks/megatron_lm.py")
SELF_EXPLAINING = ("frames=", "split ", "engine ", "with_nca: ")
"""Arguments of NCASource and with_nca in a script; the message has all there is to say."""


def messages():
    """Templates of all messages, a hole for each value: (where, template)."""
    places = [PACKAGE / part for part in COVERED]
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.glob("*.py")))]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            # An option's reader raises ValueError with the last clause of its message.
            names = CLASSES | ({"ValueError"} if file.name == "options.py" else set())
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in names:
                template = "".join(constants(node.args[-1]))
                if re.search("[a-z]", template):
                    yield f"{file.relative_to(PACKAGE)}:{node.lineno}", template


def constants(node):
    """Texts of an expression in order; of a nested expression such as a str() call none."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return [value.value if isinstance(value, ast.Constant) else "\0" for value in node.values]
    if isinstance(node, ast.BinOp):
        return [*constants(node.left), *constants(node.right)]
    return []


MESSAGES = dict(messages())
MESSAGES |= {f"{option.name} on {stack}": why for option in OPTIONS for stack, why in option.elsewhere.items()}
MESSAGES |= {"a step of Megatron-LM": megatron_lm.PAST_ARGUMENTS, "a step of Megatron-Bridge": bridge_launch.PAST_SETUP}


@pytest.mark.parametrize("place", MESSAGES)
def test_every_message_has_its_row(place):
    template = MESSAGES[place]
    if not template.startswith(SELF_EXPLAINING):
        assert any(fragment in template for fragment in FRAGMENTS), f"no row of docs/operations.md fits: {template}"


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_every_row_is_of_a_message(fragment):
    assert any(fragment in template for template in MESSAGES.values())
