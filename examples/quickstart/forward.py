"""One pass over a global batch through Megatron-Core's forward-backward schedule, in training and in validation alike."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core import mpu
from megatron.core.num_microbatches_calculator import get_micro_batch_size
from megatron.core.pipeline_parallel import get_forward_backward_func

from examples.quickstart.data import Batch

INPUTS = ("tokens", "position_ids", "labels", "loss_mask")


@dataclass(frozen=True)
class Totals:
    """Sums over a number of samples, all ranks together.

    Attributes:
        loss: Of all labels that carry loss.
        labels: How many these are.
        digest: Checksum of every sample's tokens together with its place, the same however ranks share the samples.
    """

    loss: float
    labels: int
    digest: int

    @property
    def mean_loss(self) -> float:
        """Loss of a label, in nats."""
        return self.loss / max(self.labels, 1)


class DigestedBatches:
    """Hands micro-batches through and keeps a checksum of them.

    Args:
        batches: This rank's micro-batches.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches = batches
        self.digest = 0
        self.taken = 0

    def __iter__(self) -> DigestedBatches:
        return self

    def __next__(self) -> Batch:
        batch = next(self.batches)
        rank, ranks = mpu.get_data_parallel_rank(), mpu.get_data_parallel_world_size()
        place = (self.taken * ranks + rank) * len(batch["tokens"])
        for offset, tokens in enumerate(batch["tokens"]):
            # The sum over ranks must stay below 2**63, so a checksum has 32 bits; its start value makes it tell places apart.
            self.digest += zlib.crc32(tokens.numpy().tobytes(), place + offset)
        self.taken += 1
        return batch


def run_batches(batches: Iterator[Batch], model: Any, count: int, *, sequence_length: int, train: bool) -> Totals:
    """Run micro-batches forward and, in training, backward, gradients summed over ranks and divided by the labels.

    Args:
        batches: This rank's micro-batches.
        model: In Megatron's DistributedDataParallel.
        count: How many micro-batches to take.
        sequence_length: Tokens of a sample.
        train: Whether to make gradients.

    Returns:
        Sums over the samples of all ranks.
    """
    digested = DigestedBatches(batches)
    outputs = get_forward_backward_func()(
        forward_step_func=_forward_step,
        data_iterator=digested,
        model=[model],
        num_microbatches=count,
        seq_length=sequence_length,
        micro_batch_size=get_micro_batch_size(),
        forward_only=not train,
    )
    return _add_up(outputs, digested.digest)


def _forward_step(batches: Iterator[Batch], model: Any) -> tuple[torch.Tensor, Any]:
    batch = next(batches)
    tokens, positions, labels, mask = (batch[name].cuda(non_blocking=True) for name in INPUTS)
    losses = model(tokens, positions, None, labels=labels)
    return losses, partial(_sum_losses, mask)


def _sum_losses(mask: torch.Tensor, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    loss, labels = (losses.float() * mask).sum(), mask.sum()
    return loss, labels.int(), {"totals": torch.stack([loss.detach(), labels])}


def _add_up(outputs: list[dict[str, torch.Tensor]], digest: int) -> Totals:
    sums = torch.stack([output["totals"] for output in outputs]).double().sum(dim=0)
    digests = torch.tensor(digest, device=sums.device)
    group = mpu.get_data_parallel_group()
    torch.distributed.all_reduce(sums, group=group)
    torch.distributed.all_reduce(digests, group=group)
    return Totals(float(sums[0]), int(sums[1]), int(digests))
