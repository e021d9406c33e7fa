"""Device and ranks: a GPU each where there is one, else the CPU in its place; data-parallel, alone or under torchrun."""

from __future__ import annotations

import logging
import os
import platform
import random
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

PACKAGES = ("torch", "megatron-core", "tokenizers", "numpy")


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes:
        rank: This one's number.
        ranks: How many there are; all of them data-parallel.
        device: What they train on, in words.
    """

    rank: int
    ranks: int
    device: str

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0


def enter_world() -> World:
    """Choose the device, join the process group and set up Megatron's parallel state.

    Call it before anything imports Megatron, which decides at import what the device can do.

    Returns:
        The world.
    """
    quiet_libraries()
    device = _choose_device()
    import torch
    from megatron.core import parallel_state

    _join_process_group()
    parallel_state.initialize_model_parallel()
    return World(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)


def leave_world() -> None:
    """Take Megatron's parallel state and the process group down."""
    import torch
    from megatron.core import parallel_state

    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()


def describe_environment(world: World) -> dict[str, Any]:
    """Return device, ranks and versions, as JSON takes them."""
    versions = {name: version(name) for name in PACKAGES}
    return {"device": world.device, "ranks": world.ranks, "python": platform.python_version(), **versions}


def wait_for_all() -> None:
    """Wait until every rank is here."""
    import torch

    torch.distributed.barrier()


def seed_everything(seed: int) -> None:
    """Start every random number generator anew, Megatron's tracker of them too."""
    import numpy as np
    import torch
    from megatron.core import tensor_parallel

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)


def quiet_libraries() -> None:
    """Keep warnings about libraries that a small run does without off the screen."""
    logging.getLogger("megatron").setLevel(logging.ERROR)
    for module in (r"megatron\.core", r"torch\.distributed"):
        warnings.filterwarnings("ignore", module=module)


def _choose_device() -> str:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        return torch.cuda.get_device_name()
    from megatron_nca.rehearsal import install

    install()
    return f"CPU, {torch.get_num_threads()} threads"


def _join_process_group() -> None:
    import torch

    if "RANK" in os.environ:
        torch.distributed.init_process_group("nccl")
    else:
        # A process alone needs no address; a port might be taken.
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
