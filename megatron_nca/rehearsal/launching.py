"""A launch as a user types it, read: `torchrun OPTIONS -m megatron_nca pretrain_gpt.py FLAGS`, or a file of flags.

Scripts of a shell are `recording`'s: it runs one up to the command that is read here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_nca.errors import NCAError
from megatron_nca.rehearsal.scaling import Case
from megatron_nca.stacks import BRIDGE, MEGATRON_LM

LAUNCHERS = ("torchrun", "torch.distributed.run", "torch.distributed.launch")
PLUGINS = ("megatron_nca", "megatron_nca.rehearsal")
SCRIPTS = ("pretrain_gpt.py", "pretrain_mamba.py", "pretrain_hybrid.py")
BRIDGE_SCRIPT = "run_recipe.py"
BRIDGE_MODULE = re.compile(r"^\s*(?:from|import) megatron\.bridge\b", re.M)
NEMO_MODULE = re.compile(r"^\s*(?:from|import) nemo(?:_run)?\b", re.M)
PLUGIN_MODULE = re.compile(r"^\s*(?:from|import) megatron_nca\b", re.M)
ARGUMENTS_END = ".args"
DEFAULT_RANKS_A_NODE = 8


class LaunchError(NCAError):
    """A launch that cannot be read, or is none that can be rehearsed."""


@dataclass(frozen=True)
class Launch:
    """A launch of Megatron-LM or Megatron-Bridge.

    Args:
        script: The script as it is named; one of Megatron-LM's may be in another folder on this machine.
        flags: The script's arguments: Megatron-LM's flags or Bridge's overrides, and the plugin's.
        ranks: How many there will be.
        plugin: Whether it goes through `-m megatron_nca`, or the script imports the plugin.
        environment: What it sets that training depends on.
        stack: Name of the framework.
    """

    script: Path
    flags: tuple[str, ...]
    ranks: int
    plugin: bool
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    stack: str = MEGATRON_LM.name

    @property
    def case(self) -> Case:
        """Its flags as a mapping."""
        return Case(self.script.name, arguments(self.flags))


def read_words(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Launch:
    """Read a command.

    Args:
        words: The words: a launcher with its options or none, `-m megatron_nca` or not, a script, its flags.
        environment: What it sets that training depends on.

    Returns:
        What they say.

    Raises:
        LaunchError: No script of Megatron-LM's or of Megatron-Bridge is among them.
    """
    known = (place for place, word in enumerate(words) if Path(word).name in SCRIPTS)
    place = next(known, None)
    if place is None:
        place = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
    if place is None:
        raise LaunchError(_no_script(words))
    before, script = words[:place], Path(words[place])
    stack, imports_plugin = _stack(script)
    return Launch(
        script=script,
        flags=tuple(words[place + 1 :]),
        ranks=_ranks(before, environment or {}),
        plugin=imports_plugin or any(word in PLUGINS for word in before),
        environment=dict(environment or {}),
        stack=stack,
    )


def _stack(script: Path) -> tuple[str, bool]:
    """Return the framework of a script, and whether the script imports the plugin."""
    if script.name in SCRIPTS:
        return MEGATRON_LM.name, False
    try:
        text = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if script.name == BRIDGE_SCRIPT:
            raise LaunchError(f"{script}: cannot be read ({error}); it lies in a checkout of Megatron-Bridge") from None
        text = ""
    if BRIDGE_MODULE.search(text):
        return BRIDGE.name, PLUGIN_MODULE.search(text) is not None
    if NEMO_MODULE.search(text):
        raise LaunchError(f"{script}: launches of NeMo cannot be rehearsed; megatron-nca plan lays out their data path")
    raise LaunchError(
        f"{script}: is no script of Megatron-LM's pre-training ({', '.join(SCRIPTS)}), nor one that imports megatron.bridge"
    )


def _no_script(words: Sequence[str]) -> str:
    shown = [word if word.startswith("-") else re.sub(r"^(\w+)=.*", r"\1=...", word, flags=re.DOTALL) for word in words]
    return f"{shlex.join(shown)}: names no script; a launch is torchrun ... -m megatron_nca {SCRIPTS[0]} ARGS"


def _ranks(before: Sequence[str], environment: Mapping[str, str]) -> int:
    if not any(Path(word).name in LAUNCHERS for word in before):
        return int(environment.get("WORLD_SIZE", 1))
    options = {flag.lstrip("-").replace("_", "-"): value for flag, value in arguments(before).items()}
    nodes, a_node = str(options.get("nnodes", 1)), str(options.get("nproc-per-node", 1))
    # An elastic launch gives a range; the most is what it waits for.
    nodes = nodes.rpartition(":")[2]
    return int(nodes) * (int(a_node) if a_node.isdigit() else DEFAULT_RANKS_A_NODE)


def read_file(path: Path) -> tuple[str, ...]:
    """Read a file of flags, in which `#` begins a comment.

    Raises:
        LaunchError: It cannot be read.
    """
    try:
        return tuple(shlex.split(path.read_text(encoding="utf-8"), comments=True))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise LaunchError(f"{path}: cannot be read ({error})") from None


def arguments(flags: Sequence[str]) -> dict[str, Any]:
    """Read flags and their values as argparse would split them; a flag given twice has its last values.

    Returns:
        True for a flag alone, a text for one value, a list for several.
    """
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for word in flags:
        if is_flag(word):
            name, equals, value = word.partition("=")
            values = found[name] = [value] if equals else []
        else:
            values.append(word)
    return {name: (True if not given else given[0] if len(given) == 1 else given) for name, given in found.items()}


def is_flag(word: str) -> bool:
    """Return whether a word is a flag rather than a value, such as a negative number."""
    return word.startswith("-") and not word[1:2].isdigit() and word != "-"
