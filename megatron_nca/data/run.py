"""What a framework knows of the run that Megatron-Core's dataset builder is not told."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_nca.data.curriculum import Plan


@dataclass
class Run:
    """Facts about the run in this process.

    Attributes:
        padded_vocab_size: Rows of the model's embedding; set by a framework's adapter.
        dataloader_type: Megatron's ``--dataloader-type``; set by a framework's adapter.
        plan: The training plan, set on every rank when datasets are built, also where the rank reads no data.
    """

    padded_vocab_size: int | None = None
    dataloader_type: str | None = None
    plan: Plan | None = None


CURRENT = Run()
"""Of this process: Megatron-Core keeps its own run state in module globals too, so there is one run a process."""
