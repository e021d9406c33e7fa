"""The settings: `Settings` decide every loss that is written, `Launch` only where and how a run is executed.

A run is continued only under equal `Settings`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from megatron_nca.data.domain import read_entry
from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import EntryError

DEFAULT_ENTRY = "nca:tokens=400K,grid=6,colors=4,burn_in=100,gzip=0.12-0.3"
LARGEST_MICRO_BATCH = 8
"""Samples of one forward pass; on two CPU cores larger ones are slower."""


class QuickstartError(ValueError):
    """Something the user can mend: a setting, or the state of the output folder."""


@dataclass(frozen=True)
class Settings:
    """What decides the result of both runs.

    Attributes:
        entry: The `nca:` entry; a phase, that is with `tokens=`.
        text_tokens: Text of each run, in tokens; rounded up to whole global batches.
        seed: Of the model's weights, the order of the text, and the automata.
        layers: Transformer layers.
        hidden: Width of the model.
        heads: Attention heads.
        vocab_size: Ids of the tokenizer, special tokens included.
        sequence_length: Tokens of a sample.
        global_batch: Samples of an optimizer step.
        lr: Peak learning rate on text, of both runs.
        embedding_lr: The same for input and output embeddings, which are new at the switch and far from where they must go.
        nca_lr: Peak learning rate of the NCA phase; that of the embeddings keeps its ratio.
        warmup: Share of each phase over which the learning rate rises.
        eval_every: Text tokens between two validations; rounded up to whole global batches.
        eval_samples: Validation samples, always the first ones.

    Raises:
        QuickstartError: A value is out of range.
        EntryError: The entry is not usable, or is not a phase with an end.
    """

    entry: str = DEFAULT_ENTRY
    text_tokens: int = 500_000
    seed: int = 1234
    layers: int = 4
    hidden: int = 192
    heads: int = 6
    vocab_size: int = 512
    sequence_length: int = 256
    global_batch: int = 16
    lr: float = 4e-3
    embedding_lr: float = 1e-2
    nca_lr: float = 3e-4
    warmup: float = 0.1
    eval_every: int = 50_000
    eval_samples: int = 64

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            _require(getattr(self, name) >= least, name, getattr(self, name), f"must be at least {least:,}")
        for name in ("lr", "embedding_lr", "nca_lr"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "must lie above 0 and not above 1")
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "must be a share, from 0 to below 1")
        fits = self.hidden % self.heads == 0 and (self.hidden // self.heads) % 2 == 0
        _require(fits, "heads", self.heads, f"must divide hidden={self.hidden} into heads of even width")
        _check_phase(self.parsed_entry)

    @property
    def parsed_entry(self) -> NCAEntry:
        """The `nca:` entry, read."""
        return read_entry(self.entry)

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimizer step."""
        return self.sequence_length * self.global_batch

    @property
    def text_steps(self) -> int:
        """Optimizer steps on text."""
        return math.ceil(self.text_tokens / self.step_tokens)

    @property
    def eval_steps(self) -> int:
        """Optimizer steps between two validations."""
        return math.ceil(self.eval_every / self.step_tokens)

    def train_micro_batch(self, ranks: int) -> int:
        """Samples of one forward pass of one rank in training.

        Raises:
            QuickstartError: The ranks cannot share a global batch evenly.
        """
        return _micro_batch("global_batch", self.global_batch, ranks)

    def eval_micro_batch(self, ranks: int) -> int:
        """Samples of one forward pass of one rank in validation.

        Raises:
            QuickstartError: The ranks cannot share the validation samples evenly.
        """
        return _micro_batch("eval_samples", self.eval_samples, ranks)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON takes them."""
        return asdict(self)


@dataclass(frozen=True)
class Launch:
    """Where and how; nothing here changes a loss.

    Attributes:
        out: Output folder.
        workers: Processes of the data loader on each rank; 0 loads in the training process.
        checkpoint_every: Optimizer steps between two checkpoints.
        fresh: Whether to delete what the folder holds of earlier runs.
    """

    out: Path = Path("out/quickstart")
    workers: int = 0
    checkpoint_every: int = 50
    fresh: bool = False

    def __post_init__(self) -> None:
        _require(self.workers >= 0, "workers", self.workers, "must not be negative")
        _require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "must be at least 1")


LEAST = {
    "text_tokens": 1,
    "seed": 0,
    "layers": 1,
    "hidden": 2,
    "heads": 1,
    "vocab_size": 260,
    "sequence_length": 8,
    "global_batch": 1,
    "eval_every": 1,
    "eval_samples": 1,
}


def describe_difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Name what differs between two settings, both sides: `lr: 0.002 there, 0.001 here`."""
    names = [field.name for field in fields(Settings)] + sorted(set(there) - {field.name for field in fields(Settings)})
    missing = "missing"
    different = [name for name in names if there.get(name, missing) != here.get(name, missing)]
    return "; ".join(f"{name}: {there.get(name, missing)} there, {here.get(name, missing)} here" for name in different)


def _micro_batch(name: str, samples: int, ranks: int) -> int:
    _require(samples % ranks == 0, name, samples, f"must be a multiple of the {ranks} ranks, which share it")
    return math.gcd(samples // ranks, LARGEST_MICRO_BATCH)


def _require(condition: bool, name: str, value: object, problem: str) -> None:
    if not condition:
        raise QuickstartError(f"{name}={value}: {problem}")


def _check_phase(entry: NCAEntry) -> None:
    if not entry.is_phase:
        raise EntryError(entry.text, "has no tokens=; the quickstart compares after a phase, so give it, as in tokens=400K")
    if entry.ramp or entry.floor:
        raise EntryError(entry.text, "has a ramp or a floor; the quickstart compares after a clean switch, so leave it out")
