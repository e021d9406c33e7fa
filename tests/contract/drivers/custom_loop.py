"""A loop of one's own on Megatron-Core."""

from __future__ import annotations

from pathlib import Path

import megatron_nca
import megatron_nca.rehearsal
from megatron_nca.stacks import CORE
from megatron_nca.training.options import Options
from megatron_nca.training.run import CustomLoop
from tests.contract.drivers.base import Driver
from tests.contract.machine import Checkpoint, Launch, Machine


class Own(Driver):
    """A loop of one's own on Megatron-Core."""

    stack = CORE

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        self.run = megatron_nca.register()

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """What a script does."""
        self.run.attach(CustomLoop())
        self.run.validate(Options.read(dict(launch.options)))
        if checkpoint is None:
            self.run.restore(None, 0)
        else:
            machine.load(checkpoint, machine.scheduler, load_optimizer)
            self.run.restore(checkpoint.stacks_own, checkpoint.consumed)
        self.build(launch, machine)

    def step(self, launch: Launch, machine: Machine) -> None:
        """Ours, forward, backward, update."""
        machine.ask_for_the_batch()
        scalars = self.run.before_step(machine.consumed, [machine.model], machine.optimizer, machine.scheduler)
        for name, value in scalars.items():
            machine.outcome.scalars.setdefault(name, {})[machine.step + 1] = value
        machine.train(machine.forward_steps())
        machine.scheduler.step(machine.batch)

    def save(self, machine: Machine) -> Checkpoint:
        """A script keeps the record as it likes."""
        record = self.run.state_dict(machine.consumed)
        return Checkpoint(machine.step, machine.consumed, machine.states(machine.scheduler), record)
