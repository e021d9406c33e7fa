"""Runs of a launch script of Megatron-Bridge on the stand-in, scaled down where Bridge's `pretrain` gets the config."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from megatron_nca.rehearsal.bridge import process
from megatron_nca.rehearsal.ranks import RankedRun
from megatron_nca.stacks import BRIDGE


@dataclass(frozen=True)
class BridgeRun(RankedRun):
    """A run of a launch script of Bridge's. `dataclasses.replace` makes its variants.

    Args:
        script: The script.
        words: Its arguments, overrides among them, as in the launch.
        flags: What its config is scaled to, as Megatron-LM's flags.
        ranks: The number of ranks.
        figures: Whether the model's figures cannot be had, and are those of its kind.
        plugin: Whether megatron-nca is registered.
        audited: Whether each rank checks its tensors at the switch; see `audit`.
        python: The interpreter.
        environment: Variables on top of this process's.
    """

    script: Path
    words: tuple[str, ...]
    flags: tuple[str, ...]
    ranks: int
    figures: bool = False
    plugin: bool = True
    audited: bool = True
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.ranks

    @property
    def command(self) -> tuple[str, ...]:
        """The command of every rank."""
        words = self.words if self.plugin else tuple(word for word in self.words if not is_option(word))
        modes = (*(() if self.plugin else ("--plain",)), *(("--audited",) if self.audited else ()))
        return (self.python, "-m", "megatron_nca.rehearsal", *modes, str(self.script), *words)

    @property
    def second_is_mean(self) -> bool:
        """Whether the log's second line holds a mean; see `parse_log`."""
        return False

    def prepare(self, folder: Path) -> None:
        """Write down what the config is scaled to."""
        told = {"flags": list(self.flags), "figures": self.figures}
        (folder / process.FILE).write_text(json.dumps(told), encoding="utf-8")

    def with_environment(self, environment: Mapping[str, str]) -> BridgeRun:
        """Return the same run with other variables."""
        return replace(self, environment=environment)

    def rank_environment(self, rank: int, port: int, folder: Path) -> dict[str, str]:
        """Return a rank's variables."""
        return {**super().rank_environment(rank, port, folder), process.VARIABLE: str(folder / process.FILE)}


def is_option(word: str) -> bool:
    """Return whether an argument of a launch script is an override of the plugin's."""
    return word.lstrip("+").startswith(BRIDGE.prefix)
