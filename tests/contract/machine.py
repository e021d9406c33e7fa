"""What a run is made of, beside the stack that drives it: a small model, its optimizer, Megatron's scheduler, and a step."""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from megatron.core import num_microbatches_calculator as calculator
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from tests.conftest import Tokenizer
from tests.training.test_reinit import EMBEDDING, Model

SEQUENCE, BATCH, MICRO_BATCH = 64, 8, 4
ENTRY = "nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64"
"""5,000 tokens are 78.1 samples, and end with the tenth batch of eight."""
SWITCH_STEP, STEPS = 10, 24
MINIMUM_LR = 1e-5


@dataclass(frozen=True)
class Launch:
    """What a user gives.

    Attributes:
        path: The data path; ``valid`` gives validation another.
        options: Ours, by name.
        steps: Length of the run.
        in_samples: Whether that is given as a number of samples.
        embedding_lr: Peak of the embeddings, where they have one of their own.
    """

    path: tuple[str, ...]
    valid: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = STEPS
    in_samples: bool = False
    batch: int = BATCH
    seed: int = 1234
    lr: float = 1e-3
    embedding_lr: float | None = None
    loader: str = "single"
    tokenizer: Any = field(default_factory=Tokenizer)

    @property
    def samples(self) -> int:
        """Training samples of the run."""
        return self.steps * BATCH if self.in_samples else self.steps * self.batch


@dataclass
class Checkpoint:
    """What a stack writes.

    Attributes:
        step: Steps before it.
        consumed: Samples of those.
        states: States of model, optimizer and scheduler.
        stacks_own: What the stack keeps beside them, the record in it.
    """

    step: int
    consumed: int
    states: dict[str, Any]
    stacks_own: Any


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        lines: What it printed.
        samples: Digest of every sample, by position.
        rates: Learning rate of every step, by the consumed samples before it.
        embedding_rates: The same of the embeddings, where they have one of their own.
        crossed: Consumed samples of the steps before which embeddings and moments began anew.
        scalars: Name -> step -> value.
        checkpoints: By step.
        error: What refused it, or None.
    """

    lines: list[str] = field(default_factory=list)
    samples: dict[int, str] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    embedding_rates: dict[int, float] = field(default_factory=dict)
    crossed: list[int] = field(default_factory=list)
    scalars: dict[str, dict[int, float]] = field(default_factory=dict)
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    error: Exception | None = None

    def says(self, text: str) -> bool:
        """Whether a line holds a text."""
        return any(text in line for line in self.lines)


class Writer:
    """Stands for a TensorBoard writer."""

    def __init__(self, scalars: dict[str, dict[int, float]]) -> None:
        self.scalars = scalars

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Keep a value."""
        self.scalars.setdefault(name, {})[step] = value

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Keep several."""
        for name, value in scalars.items():
            self.add_scalar(name, value, step)


class Optimizer(SimpleNamespace):
    """As much of a Megatron optimizer as is looked at, around torch's Adam."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Adam's."""
        return self.optimizer.param_groups


class Machine:
    """Model, optimizer and scheduler of one start of a run."""

    def __init__(self, launch: Launch, outcome: Outcome) -> None:
        self.launch, self.outcome = launch, outcome
        self.model = Model()
        adam = torch.optim.Adam(self._groups(), lr=launch.lr)
        self.optimizer = Optimizer(optimizer=adam)
        self.consumed = self.step = 0
        self.asked = calculator.get_num_microbatches()
        self.dataset: Any = None

    def _groups(self) -> list[dict[str, Any]]:
        """Return the groups that Megatron would make of the parameters."""
        common = {"min_lr": MINIMUM_LR, "wd_mult": 1.0}
        launch, embedding = self.launch, self.embedding
        if launch.embedding_lr is None:
            return [{"params": list(self.model.parameters()), "max_lr": launch.lr, "default_config": True, **common}]
        layers = [parameter for parameter in self.model.parameters() if parameter is not embedding]
        own = {"params": [embedding], "max_lr": launch.embedding_lr, "default_config": False, **common}
        return [{"params": layers, "max_lr": launch.lr, "default_config": True, **common}, own]

    @functools.cached_property
    def scheduler(self) -> OptimizerParamScheduler:
        """Megatron's, of samples."""
        return OptimizerParamScheduler(
            self.optimizer, init_lr=0.0, max_lr=self.launch.lr, min_lr=MINIMUM_LR, lr_warmup_steps=16,
            lr_decay_steps=self.launch.samples, lr_decay_style="cosine", start_wd=0.1, end_wd=0.1,
            wd_incr_steps=self.launch.samples, wd_incr_style="constant", use_checkpoint_opt_param_scheduler=False,
            override_opt_param_scheduler=True,
        )  # fmt: skip

    def states(self, scheduler: Any) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        states = {"model": self.model, "optimizer": self.optimizer.optimizer, "scheduler": scheduler}
        return copy.deepcopy({name: state.state_dict() for name, state in states.items()})

    def load(self, checkpoint: Checkpoint, scheduler: Any, with_optimizer: bool) -> None:
        """Take what a checkpoint holds, perhaps without optimizer and scheduler."""
        states = copy.deepcopy(checkpoint.states)
        self.model.load_state_dict(states["model"])
        self.consumed, self.step = checkpoint.consumed, checkpoint.step
        if with_optimizer:
            self.optimizer.optimizer.load_state_dict(states["optimizer"])
            scheduler.load_state_dict(states["scheduler"])

    @property
    def batch(self) -> int:
        """Samples of the coming step, as Megatron's calculator tells them."""
        return calculator.get_current_running_global_batch_size()

    def ask_for_the_batch(self) -> None:
        """Do what Megatron's loops do before a step."""
        calculator.update_num_microbatches(self.consumed, consistency_check=False)
        if calculator.get_num_microbatches() != self.asked and self.step:
            assert calculator.get_num_microbatches() > self.asked, "the batch has fallen"
        self.asked = calculator.get_num_microbatches()
        calculator.update_num_microbatches(self.consumed, consistency_check=True)

    def forward_steps(self) -> Any:
        """Return a forward step over the micro-batches of the coming batch: their losses, and a loss function with its mask."""
        positions = itertools.count(self.consumed, MICRO_BATCH)

        def forward_step() -> Any:
            begin = next(positions)
            samples = [self.dataset[begin + place] for place in range(MICRO_BATCH)]
            for place, sample in enumerate(samples):
                self.outcome.samples[begin + place] = hashlib.sha256(sample["tokens"].numpy().tobytes()).hexdigest()
            # NCA's ids are the lowest, so that the losses of the two tell them apart.
            losses = torch.stack([sample["tokens"].float() for sample in samples])
            mask = torch.stack([sample["loss_mask"] for sample in samples])
            return losses, functools.partial(lambda mask, losses: (losses * mask).sum(), mask)

        return forward_step

    def train(self, forward_step: Any) -> None:
        """Do one step, all of it but the scheduler's."""
        adam = self.optimizer.optimizer
        moments = [state["exp_avg"] for state in adam.state.values()]
        if moments and not any(moment.any() for moment in moments) and self.embedding.any():
            self.outcome.crossed.append(self.consumed)
        self.outcome.rates[self.consumed] = adam.param_groups[0]["lr"]
        if self.launch.embedding_lr is not None:
            self.outcome.embedding_rates[self.consumed] = adam.param_groups[1]["lr"]
        for _ in range(self.batch // MICRO_BATCH):
            losses, loss_function = forward_step()
            loss_function(losses)
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        adam.step()

    @property
    def embedding(self) -> torch.Tensor:
        """The input embedding; a start's is zero, and one that is drawn anew is not."""
        return dict(self.model.named_parameters())[EMBEDDING].detach()


def begin_batches(launch: Launch) -> None:
    """Set Megatron's microbatch calculator up for a launch."""
    calculator.unset_num_microbatches_calculator()
    calculator.init_num_microbatches_calculator(0, None, launch.batch, MICRO_BATCH, 1)
