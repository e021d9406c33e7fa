"""Process groups: NCCL is asked for, gloo is given."""

import atexit
import functools
from collections.abc import Callable
from typing import Any

import torch.distributed

from megatron_nca.testing.stand_in.replacing import replace

_NCCL_ONLY = ("pg_options", "device_id")


def install() -> None:
    """Replace the making of process groups."""
    c10d = torch.distributed.distributed_c10d
    for name in ("init_process_group", "new_group"):
        replace(c10d, torch.distributed, **{name: _with_gloo(getattr(c10d, name))})
    atexit.register(_leave_groups)


def _leave_groups() -> None:
    """Stop gloo's threads: one that asks for the interpreter while it shuts down aborts a process that has succeeded."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _with_gloo(make_group: Callable) -> Callable:
    @functools.wraps(make_group)
    def make(*args: Any, **kwargs: Any) -> Any:
        if make_group.__name__ == "init_process_group" and args:
            kwargs["backend"], args = args[0], args[1:]
        if "nccl" in (kwargs.get("backend") or "nccl"):
            kwargs["backend"] = "gloo"
        for option in _NCCL_ONLY:
            kwargs.pop(option, None)
        return make_group(*args, **kwargs)

    return make
