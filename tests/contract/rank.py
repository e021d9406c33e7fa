"""One of two ranks, each on a node of its own: starts a run on every stack, of whose text the second node has no file.

    python -m tests.contract.rank FOLDER RANK TEXT

Prints for each stack in how many seconds the start was refused, and by what.
"""

import os
import sys
import time
from pathlib import Path


def main(folder: Path, rank: int, text: str) -> None:
    """Start every stack's run and print what became of it."""
    node = folder / f"node{rank}"
    node.mkdir()
    if rank == 0:
        for ending in (".bin", ".idx"):
            (node / f"text{ending}").symlink_to(f"{text}{ending}")
    # A data path is the same on every rank; what lies there is the node's.
    os.chdir(node)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")

    # Before Megatron-Core, whose import of a real Bridge's companions it sees to.
    from tests.contract.conftest import DRIVERS, parallel_state  # isort: skip
    import torch

    from tests.contract.machine import ENTRY, Launch

    torch.distributed.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{folder}/store")
    parallel_state.initialize_model_parallel()
    for name, driver in DRIVERS.items():
        stack = driver(folder / "cache")
        torch.distributed.barrier()
        began = time.monotonic()
        outcome = stack.launch(Launch((ENTRY, "text")), until=1)
        print(f"{name}\t{time.monotonic() - began:.1f}\t{type(outcome.error).__name__}: {outcome.error}", flush=True)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
