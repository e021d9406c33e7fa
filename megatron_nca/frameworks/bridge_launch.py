"""Megatron-Bridge's own launch scripts: the callback of the switch without a word in them, and ``nca.KEY=VALUE`` overrides.

Nothing here imports Megatron-Bridge: its modules are changed when a script imports them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from megatron_nca.errors import NCAError
from megatron_nca.frameworks.after_import import after_import
from megatron_nca.frameworks.flags import Flags, add_flags, take_flags
from megatron_nca.frameworks.replacing import replace

OVERRIDE = "nca."
PACKAGE = "megatron.bridge"
NOT_IN_BRIDGE = {
    "valid": "the validation on NCA is Megatron-LM's alone",
    "resume_as": "load the checkpoint as checkpoint.pretrained_checkpoint, which starts the curriculum with its weights",
}

_given: Flags | None = None


def install() -> None:
    """See to it that every ``pretrain`` has an NCACallback, and take ``nca.`` off overrides; a second call changes nothing."""
    after_import(f"{PACKAGE}.training.callbacks", _add_callback)
    after_import(f"{PACKAGE}.training.utils.omegaconf_utils", _take_overrides)


def _add_callback(module: ModuleType) -> None:
    if not hasattr(module.normalize_callbacks, "__wrapped__"):
        replace(module, "normalize_callbacks", _with_callback, PACKAGE)


def _take_overrides(module: ModuleType) -> None:
    if not hasattr(module.parse_hydra_overrides, "__wrapped__"):
        replace(module, "parse_hydra_overrides", _taking_overrides, PACKAGE)


def _with_callback(normalize_callbacks: Any) -> Any:
    def normalize_and_add(callbacks: Any) -> Any:
        # Only now is Bridge imported whole.
        from megatron_nca.frameworks.megatron_bridge import NCACallback

        manager = normalize_callbacks([] if callbacks is None else callbacks)
        there = any(
            isinstance(getattr(method, "__self__", None), NCACallback) for method in manager.list_callbacks("on_train_start")
        )
        if there and _given is not None:
            raise NCAError(
                "nca. overrides are given, and the script has an NCACallback with settings of its own; give one or the other"
            )
        if not there:
            flags = _given or Flags()
            manager.add(NCACallback(flags.transition, override_curriculum=flags.override_curriculum))
        return manager

    return normalize_and_add


def _taking_overrides(parse_hydra_overrides: Any) -> Any:
    def parse_others(cfg: Any, overrides: Sequence[str]) -> Any:
        global _given
        ours = [override for override in overrides if override.lstrip("+").startswith(OVERRIDE)]
        if ours:
            _given = read_overrides(ours)
        return parse_hydra_overrides(cfg, [override for override in overrides if override not in ours])

    return parse_others


def read_overrides(overrides: Sequence[str]) -> Flags:
    """Read ``nca.KEY=VALUE``, whose keys are Megatron-LM's ``--nca-`` flags with ``_`` in place of ``-``.

    Args:
        overrides: The words of the command line.

    Returns:
        What they say.

    Raises:
        NCAError: A key or value is unknown, or it has no meaning in Megatron-Bridge.
    """
    parser = _Parser(prog="nca. overrides", add_help=False, allow_abbrev=False)
    add_flags(parser)
    words: list[str] = []
    for override in overrides:
        key, separator, value = override.lstrip("+")[len(OVERRIDE) :].partition("=")
        if key in NOT_IN_BRIDGE:
            raise NCAError(f"{override}: {NOT_IN_BRIDGE[key]}")
        if not separator:
            raise NCAError(f"{override}: has no value; write nca.{key}=VALUE")
        flag = "--nca-" + key.replace("_", "-")
        if key == "override_curriculum":
            words += [flag] if _truth(override, value) else []
        else:
            words.append(f"{flag}={value}")
    return Flags.read(take_flags(parser.parse_args(words)), argparse.Namespace())


def _truth(override: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise NCAError(f"{override}: must be true or false")
    return value.lower() == "true"


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise NCAError(f"{self.prog}: {message.replace('--nca-', 'nca.')}")
