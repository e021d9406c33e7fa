"""Checkpoints: Megatron-Core's distributed format (`torch_dist`), published whole, the last two kept.

| in `checkpoints/` | what it is |
|---|---|
| `latest` | name of the newest whole checkpoint |
| `step-000150/`, `step-000200/` | the last two |
| `.partial/` | what is being written |

A checkpoint is written under another name, renamed when all ranks are done, and only then named in `latest`. So a kill at any
moment leaves the one before.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core import dist_checkpointing, mpu, tensor_parallel
from megatron.core.dist_checkpointing.mapping import ShardedObject

from examples.quickstart.files import write_text
from examples.quickstart.settings import QuickstartError
from examples.quickstart.world import World, wait_for_all

FORMAT = ("torch_dist", 1)
KEPT = 2


@dataclass
class Learner:
    """All that changes while training.

    Attributes:
        model: In Megatron's DistributedDataParallel.
        optimizer: Its MegatronOptimizer.
        scheduler: Megatron's OptimizerParamScheduler.
        consumed_samples: Samples that were trained on.
        curriculum: The run's record of its curriculum, or None.
    """

    model: Any
    optimizer: Any
    scheduler: Any
    consumed_samples: int = 0
    curriculum: dict[str, Any] | None = None


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: Where they live.
        world: The ranks that write and read them together.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder = folder
        self.world = world

    def latest_step(self) -> int | None:
        """Return the step of the newest whole checkpoint, or None without one."""
        latest = self.folder / "latest"
        if not latest.exists():
            return None
        return int(latest.read_text(encoding="utf-8").strip().removeprefix("step-"))

    def save(self, learner: Learner, step: int) -> None:
        """Write a checkpoint and publish it; all ranks call it together."""
        partial = self.folder / ".partial"
        if self.world.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        wait_for_all()
        dist_checkpointing.save(_sharded_state(learner), str(partial), FORMAT)
        wait_for_all()
        if self.world.is_first:
            self._publish(partial, self._path(step))
        wait_for_all()

    def load(self, learner: Learner) -> None:
        """Bring a learner to the state of the newest checkpoint, if there is one; all ranks call it together.

        Raises:
            QuickstartError: `latest` names a checkpoint that is not there.
        """
        step = self.latest_step()
        if step is None:
            return
        path = self._path(step)
        if not path.is_dir():
            raise QuickstartError(f"{self.folder / 'latest'} names {path.name}, which is missing; start over with --fresh")
        state = dist_checkpointing.load(_sharded_state(learner, is_loading=True), str(path), FORMAT)
        _restore(learner, state)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def _publish(self, partial: Path, path: Path) -> None:
        # There is one of this name if a process was killed between the rename and the next line.
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        write_text(self.folder / "latest", path.name + "\n")
        for older in sorted(self.folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(older)


def _sharded_state(learner: Learner, is_loading: bool = False) -> dict[str, Any]:
    # Without the data-parallel wrapper, as Megatron-LM has it: its name is no part of a weight's.
    model = learner.model.module.sharded_state_dict()
    return {
        "model": model,
        "optimizer": learner.optimizer.sharded_state_dict(model, is_loading=is_loading),
        "scheduler": learner.scheduler.state_dict(),
        "consumed_samples": learner.consumed_samples,
        "curriculum": learner.curriculum,
        "random": ShardedObject("random", _random_states(), (1,), (0,), replica_id=mpu.get_data_parallel_rank()),
    }


def _restore(learner: Learner, state: dict[str, Any]) -> None:
    learner.model.module.load_state_dict(state["model"])
    learner.optimizer.load_state_dict(state["optimizer"])
    # load_state_dict adds the checkpoint's steps to those already taken.
    learner.scheduler.num_steps = 0
    learner.scheduler.load_state_dict(state["scheduler"])
    learner.consumed_samples = state["consumed_samples"]
    learner.curriculum = state.get("curriculum")
    _set_random_states(state["random"])


def _random_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(),
        "tracker": tensor_parallel.get_cuda_rng_tracker().get_states(),
    }


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state(states["device"])
    tensor_parallel.get_cuda_rng_tracker().set_states(states["tracker"])
