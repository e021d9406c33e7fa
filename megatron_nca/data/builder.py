"""Builds the datasets of a blend with ``nca:`` entries, in the place of BlendedMegatronDatasetBuilder.build.

The text goes to Megatron's own builder, asked for as many samples as the schedule leaves to it; the entries become
NCADatasets; a ScheduledDataset joins them. Validation and test hold the final blend only: without ``nca:`` entries in it they
are Megatron's own datasets, the same as in a run without the plugin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset
from megatron.core.datasets.utils import Split

from megatron_nca.automaton.source import NCASource
from megatron_nca.data import run
from megatron_nca.data.band import check_band
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import Blend, Curriculum, Plan, mentions_nca, plan_training, read_blend
from megatron_nca.data.entry import NCAEntry
from megatron_nca.data.fingerprint import check_ranks_agree, fingerprint
from megatron_nca.data.layout import SampleLayout
from megatron_nca.data.nca_dataset import NCADataset, TrajectoryDocuments
from megatron_nca.data.scheduled_dataset import ScheduledDataset
from megatron_nca.data.vocabulary import token_ids
from megatron_nca.errors import CurriculumError, EntryError

Build = Callable[[BlendedMegatronDatasetBuilder], list[Any]]


def wants_curriculum(config: Any) -> bool:
    """Tell whether any blend of a dataset config has an ``nca:`` entry."""
    blends = [config.blend, *(config.blend_per_split or [])]
    return any(mentions_nca(blend) for blend in blends)


def build_datasets(builder: BlendedMegatronDatasetBuilder, build: Build) -> list[Any]:
    """Build train, validation and test datasets.

    Args:
        builder: As Megatron constructed it; must be called on all ranks, as its ``build``.
        build: Megatron's own ``build``, for the text.

    Returns:
        A dataset for each split: None where there is none, or where this rank reads no data.

    Raises:
        NCAError: The data path does not fit the run.
    """
    _check_run(builder)
    blends = _blend_of_each_split(builder.config)
    curricula = _read_splits(builder.config, blends)
    plans = [_plan_split(builder, split, curricula[split.value]) for split in Split]
    entries = [entry for plan in plans if plan for entry in plan.curriculum.entries]
    check_ranks_agree(fingerprint(entries, builder.config.random_seed))
    _check_entries(entries, builder.config)
    run.set_plan(plans[Split.train.value], builder.config)
    text = _build_text(builder, build, plans, curricula)
    if torch.distributed.is_initialized() and not builder.is_built_on_rank():
        return [None] * len(Split)
    return [_join(builder, split, plans[split.value], blends[split.value], text[split.value]) for split in Split]


def _check_run(builder: BlendedMegatronDatasetBuilder) -> None:
    if not (isinstance(builder.cls, type) and issubclass(builder.cls, GPTDataset)):
        raise CurriculumError(
            f"nca: entries need a GPTDataset for the text, this run reads it with {builder.cls.__name__}; "
            "use them in GPT-style pre-training, not in fine-tuning or with encoder models"
        )
    loader = run.facts().dataloader_type
    if loader not in (None, "single"):
        raise CurriculumError(
            f"nca: entries need --dataloader-type single, which reads samples in order; with {loader!r} "
            "no token count can be kept"
        )


def _blend_of_each_split(config: Any) -> list[Blend | None]:
    if not config.blend:
        return list(config.blend_per_split)
    return [config.blend if config.split_matrix[split.value] is not None else None for split in Split]


def _read_splits(config: Any, blends: list[Blend | None]) -> list[Curriculum | None]:
    """Read each split's blend, and one that several splits share once: the same words have the same meaning."""
    if config.blend:
        common = read_blend(config.blend).measured()
        return [None if blend is None else common for blend in blends]
    return [
        read_blend(blend, mixed=not _is_list_of_sets(config, split)).measured() if mentions_nca(blend) else None
        for split, blend in zip(Split, blends, strict=True)
    ]


def _plan_split(builder: BlendedMegatronDatasetBuilder, split: Split, curriculum: Curriculum | None) -> Plan | None:
    if curriculum is None:
        return None
    config, size = builder.config, builder.sizes[split.value]
    if split is Split.train:
        if size is None:
            raise CurriculumError("nca: entries need a number of training samples; give --train-iters or --train-samples")
        facts = run.facts()
        boundaries = BatchBoundaries.from_megatron(facts.consumed_samples)
        return plan_training(curriculum, config.sequence_length, size, boundaries, facts.ended_phases)
    final = curriculum.final()
    if size is None and final.entries and not _is_list_of_sets(config, split):
        raise EntryError(
            final.entries[0].text, f"has no end, so the {split.name} split needs a size; give --eval-iters, no full validation"
        )
    # A split of no samples is built all the same, and a data loader refuses an empty one.
    return plan_training(final, config.sequence_length, max(size or 0, 1), BatchBoundaries())


def _is_list_of_sets(config: Any, split: Split) -> bool:
    """Tell whether a split's datasets are kept apart (``--multiple-validation-sets``)."""
    return bool(config.multiple_validation_sets) and config.blend is None and split is Split.valid


def _check_entries(entries: list[NCAEntry], config: Any) -> None:
    """Refuse, on every rank alike, what would fail only once samples are read."""
    for entry in entries:
        token_ids(entry, config.tokenizer, run.facts().padded_vocab_size)
        check_band(entry)


def _build_text(
    builder: BlendedMegatronDatasetBuilder, build: Build, plans: list[Plan | None], curricula: list[Curriculum | None]
) -> list[Any]:
    """Build the text of every split with Megatron's own builder."""
    config, sizes = copy.copy(builder.config), list(builder.sizes)
    for split, plan in zip(Split, plans, strict=True):
        if plan is None or plan.text_source is None or not plan.curriculum.entries:
            continue
        if sizes[split.value] is not None and not _is_list_of_sets(config, split):
            sizes[split.value] = max(plan.schedule.counts(plan.samples)[plan.text_source], 1)
    if config.blend:
        config.blend = next((curriculum.text_blend for curriculum in curricula if curriculum), None)
        has_text = config.blend is not None
    else:
        given = config.blend_per_split
        config.blend_per_split = [
            curriculum.text_blend if curriculum else blend for curriculum, blend in zip(curricula, given, strict=True)
        ]
        has_text = any(config.blend_per_split)
    if not has_text:
        return [None] * len(Split)
    return build(type(builder)(builder.cls, sizes, builder.is_built_on_rank, config))


def _join(builder: BlendedMegatronDatasetBuilder, split: Split, plan: Plan | None, blend: Blend | None, text: Any) -> Any:
    """Return the dataset of one split."""
    if plan is None or not plan.curriculum.entries:
        return text
    if blend is not None and _is_list_of_sets(builder.config, split):
        return _list_of_sets(builder, split, plan, blend, text)
    samples = plan.schedule.counts(plan.samples)
    datasets = _nca_datasets(builder, split, plan.curriculum, samples)
    if plan.text_source is not None:
        _check_text_length(plan, text, samples[plan.text_source])
        datasets.append(text)
    return ScheduledDataset(plan, datasets, split)


def _nca_datasets(
    builder: BlendedMegatronDatasetBuilder, split: Split, curriculum: Curriculum, samples: tuple[int, ...]
) -> list[Any]:
    return [
        make_dataset(entry, stream, count, split, builder.config)
        for entry, stream, count in zip(curriculum.entries, curriculum.streams, samples, strict=False)
    ]


def make_dataset(entry: NCAEntry, stream: int, samples: int, split: Split, config: Any) -> NCADataset:
    """Build the dataset of one entry.

    Args:
        entry: The entry.
        stream: Number that separates it from entries of the same process.
        samples: Length of the dataset.
        split: Which split; rules never cross splits.
        config: Megatron's GPTDatasetConfig; gives sequence length, tokenizer and the default seed.

    Returns:
        The dataset; nothing is generated until it is read.
    """
    seed = config.random_seed if entry.seed is None else entry.seed
    source = NCASource(entry.config, seed, split.name, entry.rules, stream)
    layout = SampleLayout(config.sequence_length, bool(config.add_extra_token_to_sequence), entry.trajectory)
    ids = token_ids(entry, config.tokenizer, run.facts().padded_vocab_size)
    documents = TrajectoryDocuments(source, ids, layout, config.tokenizer.eod)
    return NCADataset(documents, entry, samples, split, config)


def _check_text_length(plan: Plan, text: Any, wanted: int) -> None:
    if text is not None and len(text) < wanted:
        raise CurriculumError(
            f"data path: the schedule leaves {wanted:,} samples to the text, which holds {len(text):,} in one pass and has no "
            "weights to say how often to repeat it; give every entry a weight, or shorten the run"
        )


def _list_of_sets(builder: BlendedMegatronDatasetBuilder, split: Split, plan: Plan, blend: Blend, text: Any) -> list[Any]:
    """Keep several validation sets apart, in the order of the data path (``--multiple-validation-sets``)."""
    texts = iter(text if isinstance(text, list) else [text])
    size = builder.sizes[split.value]
    if size is None:
        raise EntryError(plan.curriculum.entries[0].text, "has no end; give --eval-iters instead of --full-validation")
    curriculum = plan.curriculum
    entries = iter(_nca_datasets(builder, split, curriculum, (size,) * len(curriculum.entries)))
    return [next(entries) if mentions_nca(([prefix], None)) else next(texts) for prefix in blend[0]]
