"""A driver: what a start of a run does, whichever the stack."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron.core.datasets import utils as datasets_utils
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from megatron_nca.errors import NCAError
from tests.contract.machine import SEQUENCE, Checkpoint, Launch, Machine, Outcome, begin_batches


def read_blend(words: Sequence[str]) -> Any:
    """Read a data path as the stacks do, through the name that megatron-nca has replaced by then."""
    return datasets_utils.get_blend_from_list(list(words))


class Driver:
    """One stack. ``launch`` does what a start of a run does."""

    stack: Any
    reads_checkpoint_first = True

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.handlers: dict[str, Any] = {}

    def light(self, module: str, name: str, unless: Any = None) -> None:
        """Put a handler of this driver's in a function's place, before megatron-nca wraps it."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            handler = self.handlers.get(name)
            return handler(*arguments, **keywords) if handler else unless

        setattr(importlib.import_module(module), name, call)

    def launch(
        self,
        launch: Launch,
        until: int | None = None,
        checkpoint: Checkpoint | None = None,
        load_optimizer: bool = True,
        save_at: Sequence[int] = (),
        skip: Sequence[int] = (),
    ) -> Outcome:
        """Start a run, from a checkpoint where there is one, and go on until a step.

        Args:
            launch: What the user gives.
            until: Step to stop after; None for the run's last, 0 for none.
            checkpoint: To go on from.
            load_optimizer: Whether the optimizer's and the scheduler's states are loaded with it.
            save_at: Steps after which a checkpoint is written.
            skip: Steps that the loop passes over, as Megatron-LM's ``--iterations-to-skip``.
        """
        outcome = Outcome()
        begin_batches(launch)
        until = launch.steps if until is None else until
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                machine = Machine(launch, outcome)
                self.prepare(launch, machine, checkpoint, load_optimizer)
                while machine.step < until:
                    if machine.step + 1 not in skip:
                        self.step(launch, machine)
                    machine.step += 1
                    machine.consumed += machine.batch
                    if machine.step in save_at:
                        outcome.checkpoints[machine.step] = self.save(machine)
            except (NCAError, StopIteration) as error:
                outcome.error = error
        outcome.lines = printed.getvalue().splitlines()
        return outcome

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """Do all that comes before the first step."""
        raise NotImplementedError

    def step(self, launch: Launch, machine: Machine) -> None:
        """Do a step."""
        raise NotImplementedError

    def save(self, machine: Machine) -> Checkpoint:
        """Write a checkpoint."""
        raise NotImplementedError

    def scheduler(self, machine: Machine) -> Any:
        """Return the stack's scheduler."""
        return machine.scheduler

    def build(self, launch: Launch, machine: Machine, samples: int | None = None) -> None:
        """Build the datasets as Megatron-LM and Bridge do."""
        own: dict[str, Any] = (
            {"blend": read_blend(launch.path), "split": "90,5,5"}
            if launch.valid is None
            else {"blend_per_split": [read_blend(path) for path in (launch.path, launch.valid, launch.valid)]}
        )
        config = GPTDatasetConfig(
            random_seed=launch.seed, sequence_length=SEQUENCE, tokenizer=launch.tokenizer, reset_position_ids=False,
            reset_attention_mask=False, eod_mask_loss=False, path_to_cache=str(self.cache), **own,
        )  # fmt: skip
        sizes = [samples or launch.samples, BATCH_OF_VALIDATION, BATCH_OF_VALIDATION]
        machine.dataset = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()[0]


BATCH_OF_VALIDATION = 8
