"""The text of every split, by Megatron's own builder.

One final blend goes to it as a whole and stays what it is without the plugin. Texts of phases are built one by one, each
asked for as many samples as the schedule has for it; the way there is the builder's own, which divides the work between
threads and lets rank 0 write the index files first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.utils import Split

from megatron_nca.data.curriculum import Plan

Build = Callable[[BlendedMegatronDatasetBuilder], list[Any]]


def needs_schedule(plan: Plan) -> bool:
    """Tell whether a split is more than Megatron's own datasets."""
    return bool(plan.curriculum.entries) or not plan.curriculum.text_is_one


def is_list_of_sets(config: Any, split: Split) -> bool:
    """Tell whether a split's datasets are kept apart (``--multiple-validation-sets``)."""
    return bool(config.multiple_validation_sets) and config.blend is None and split is Split.valid


def build_texts(builder: BlendedMegatronDatasetBuilder, build: Build, plans: list[Plan | None]) -> list[Any]:
    """Build the text of every split; must be called on all ranks.

    Args:
        builder: As Megatron constructed it.
        build: Megatron's own ``build``.
        plans: Of train, validation and test, None where a split is not planned here.

    Returns:
        For each split its dataset, None without text, or a list of one dataset for each text source where those are several.
    """
    train = plans[Split.train.value]
    if train is None or train.curriculum.text_is_one:
        return _build_blends(builder, build, plans, list(Split))
    held_out = _build_blends(builder, build, plans, [Split.valid, Split.test])
    return [build_sources(builder, train), *held_out[1:]]


def build_sources(builder: BlendedMegatronDatasetBuilder, plan: Plan) -> list[Any]:
    """Build the training texts of a plan one by one, in the order of its sources."""
    config = builder.config
    part = config.split_matrix[Split.train.value] if config.blend else (0.0, 1.0)
    counts = plan.schedule.counts(plan.samples)
    texts = [(source.prefixes[0], count) for source, count in zip(plan.sources, counts, strict=True) if not source.is_nca]
    # Asked for one sample at least, so that a text that is missing is found at the start.
    sizes = [[max(count, 1), 0, 0] for _, count in texts]
    prefixes = [prefix for prefix, _ in texts]
    built: list[Any] = builder._build_megatron_datasets_parallel(prefixes, [part, None, None], sizes)[Split.train.value]
    return built


def _build_blends(
    builder: BlendedMegatronDatasetBuilder, build: Build, plans: list[Plan | None], splits: list[Split]
) -> list[Any]:
    """Build the blends of some splits as Megatron does."""
    config, sizes = copy.copy(builder.config), list(builder.sizes)
    for split, plan in zip(Split, plans, strict=True):
        if plan is None or plan.text_source is None or not plan.curriculum.entries:
            continue
        if sizes[split.value] is not None and not is_list_of_sets(config, split):
            sizes[split.value] = max(plan.schedule.counts(plan.samples)[plan.text_source], 1)
    if config.blend:
        config.blend = next((plan.curriculum.text_blend for plan in plans if plan), None)
        has_text = config.blend is not None
        if len(splits) < len(Split):
            config.split_matrix = [
                part if split in splits else None for split, part in zip(Split, config.split_matrix, strict=True)
            ]
    else:
        config.blend_per_split = [
            (plan.curriculum.text_blend if plan else blend) if split in splits else None
            for split, plan, blend in zip(Split, plans, config.blend_per_split, strict=True)
        ]
        has_text = any(config.blend_per_split)
    if not has_text:
        return [None] * len(Split)
    return build(type(builder)(builder.cls, sizes, builder.is_built_on_rank, config))
