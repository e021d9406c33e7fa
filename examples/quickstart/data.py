"""Datasets from Megatron-Core's own builder, and a loader that reads them in order from the consumed samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.core import mpu
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from torch.utils.data import DataLoader

from examples.quickstart.course import Course
from examples.quickstart.sampler import InOrderBatches
from examples.quickstart.settings import Settings
from examples.quickstart.text import SPLIT, Text
from examples.quickstart.world import World, wait_for_all

Batch = dict[str, torch.Tensor]


def build_datasets(settings: Settings, course: Course, text: Text, cache: Path) -> tuple[Any, Any]:
    """Build a run's training and validation datasets.

    Megatron's microbatch calculator must be initialised: the plugin reads the global batch off it.

    Args:
        settings: Gives seed, sequence length and validation samples.
        course: The run.
        text: Its text.
        cache: Folder for Megatron's index files.

    Returns:
        (training dataset, validation dataset). Validation is text in every run.

    Raises:
        NCAError: The `nca:` entry does not fit tokenizer or run.
    """
    config = GPTDatasetConfig(
        random_seed=settings.seed,
        sequence_length=settings.sequence_length,
        blend=course.blend,
        split=SPLIT,
        path_to_cache=str(cache),
        tokenizer=text.tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    sizes = [course.samples, settings.eval_samples, 0]
    train, valid, _ = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()
    return train, valid


def clear_cache(cache: Path, world: World) -> None:
    """Delete Megatron's index files of earlier starts.

    Megatron writes them under their final names, so one that a killed process left half written would be taken for whole.
    They take milliseconds to build.
    """
    if world.is_first:
        shutil.rmtree(cache, ignore_errors=True)
    wait_for_all()


def micro_batches(dataset: Any, consumed: int, samples: int, micro_batch: int, workers: int) -> Iterator[Batch]:
    """Read a dataset in order.

    Args:
        dataset: A Megatron dataset.
        consumed: Samples to pass over.
        samples: Where to end.
        micro_batch: Samples of a micro-batch.
        workers: Processes that read ahead; 0 reads in this one.

    Returns:
        This rank's micro-batches, each a dict of tensors (micro_batch, sequence_length).
    """
    ranks = mpu.get_data_parallel_world_size()
    sampler = InOrderBatches(consumed, samples, micro_batch, mpu.get_data_parallel_rank(), ranks)
    return iter(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))
