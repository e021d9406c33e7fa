"""Validation: the mean loss over always the same samples of text."""

from __future__ import annotations

from typing import Any

import torch

from examples.quickstart.data import micro_batches
from examples.quickstart.forward import run_batches
from examples.quickstart.settings import Settings


def evaluate(model: Any, dataset: Any, settings: Settings, ranks: int) -> float:
    """Return the mean loss over the first validation samples, in nats a token; every rank gets the same.

    Args:
        model: In Megatron's DistributedDataParallel.
        dataset: Validation dataset.
        settings: Give the number of samples.
        ranks: Data-parallel ranks, which share the samples.
    """
    micro_batch = settings.eval_micro_batch(ranks)
    samples = settings.eval_samples
    batches = micro_batches(dataset, 0, samples, micro_batch, workers=0)
    model.eval()
    with torch.no_grad():
        count = samples // (micro_batch * ranks)
        totals = run_batches(batches, model, count, sequence_length=settings.sequence_length, train=False)
    model.train()
    return totals.mean_loss
