"""Spawned processes, such as Megatron's checkpoint writers: they too get the stand-in.

A spawned process begins by importing its parent's script, here without the stand-in that the script relies on. It is made to
install the stand-in instead, which also spares it the import of all of Megatron. Nothing defined in the script itself can be
sent to it.
"""

import functools
from multiprocessing import spawn
from typing import Any

from megatron_nca.rehearsal.stand_in.replacing import replace

_CHILD = "megatron_nca.rehearsal.stand_in.child"


def install() -> None:
    """Replace what a spawned process is told to import."""
    replace(spawn, get_preparation_data=_with_stand_in(spawn.get_preparation_data))


def _with_stand_in(get_preparation_data: Any) -> Any:
    @functools.wraps(get_preparation_data)
    def prepare(name: str) -> dict[str, Any]:
        data: dict[str, Any] = get_preparation_data(name)
        data.pop("init_main_from_path", None)
        data["init_main_from_name"] = _CHILD
        return data

    return prepare
