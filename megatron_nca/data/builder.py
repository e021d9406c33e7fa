"""Builds the datasets of a blend with ``nca:`` entries or phases, in the place of BlendedMegatronDatasetBuilder.build.

The text goes to Megatron's own builder (``texts``), asked for as many samples as the schedule leaves to it; the entries become
NCADatasets; a ScheduledDataset joins them. Validation and test hold the final blend only: without ``nca:`` entries in it they
are Megatron's own datasets, with the same samples as in a run without the plugin.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset
from megatron.core.datasets.utils import Split

from megatron_nca.data.agreement import from_rank_0, raise_together
from megatron_nca.data.amending import Blended
from megatron_nca.data.band import check_band
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.continuing import continued_history, plan_start, unread_blend
from megatron_nca.data.controls import make_source
from megatron_nca.data.curriculum import Blend, Curriculum, Plan, mentions_nca, plan_training, read_blend
from megatron_nca.data.entry import NCAEntry
from megatron_nca.data.fingerprint import check_ranks_agree, fingerprint, with_complexity
from megatron_nca.data.held_out import refuse_endless
from megatron_nca.data.identity import text_identity, tokens_identity
from megatron_nca.data.layout import SampleLayout
from megatron_nca.data.nca_dataset import NCADataset, TrajectoryDocuments
from megatron_nca.data.run import Datasets, Run
from megatron_nca.data.scheduled_dataset import LoopReminder, PlainBlend, ScheduledDataset
from megatron_nca.data.text_files import check_texts
from megatron_nca.data.texts import Build, build_texts, given_by_blend, is_list_of_sets, needs_schedule
from megatron_nca.data.vocabulary import required_end_of_document, token_ids
from megatron_nca.errors import CurriculumError


def needs_curriculum(config: Any) -> bool:
    """Tell whether any blend of a dataset config has an ``nca:`` entry."""
    blends = [config.blend, *(config.blend_per_split or [])]
    return any(mentions_nca(blend) for blend in blends)


def build_datasets(builder: BlendedMegatronDatasetBuilder, build: Build, run: Run) -> list[Any]:
    """Build train, validation and test datasets.

    Args:
        builder: The builder as Megatron constructed it; must be called on all ranks, as its ``build``.
        build: Megatron's own ``build``, for the text.
        run: The run that they are built for; told of the training plan on every rank.

    Returns:
        A dataset for each split: None where there is none, or where this rank reads no data.

    Raises:
        NCAError: The data path does not fit the run; on every rank, also where only another one has met the error.
    """
    config = builder.config
    if not needs_curriculum(config):
        run.begin(None, Datasets(config, config.random_seed))
        return build(builder)
    blends, curricula = raise_together(lambda: _read(builder))
    blended = _given_by_blend(builder, build, curricula[Split.train.value], run)
    plans = raise_together(lambda: _plan(builder, curricula, blended, run))
    entries = [entry for plan in plans if plan for entry in plan.curriculum.entries]
    samples = fingerprint(entries, config.random_seed)
    check_ranks_agree(with_complexity(samples, entries, config.random_seed))
    raise_together(lambda: _check_sources(builder, plans, run))
    training = plans[Split.train.value]
    datasets = _describe(training, samples, config, run, blended)
    run.begin(training, datasets)
    text = build_texts(builder, build, plans, datasets.history)
    if torch.distributed.is_initialized() and not builder.is_built_on_rank():
        return [None] * len(Split)
    return [_join(builder, split, plans[split.value], blends[split.value], text[split.value], run) for split in Split]


def _read(builder: BlendedMegatronDatasetBuilder) -> tuple[list[Blend | None], list[Curriculum | None]]:
    """Read the data path of every split."""
    if not (isinstance(builder.cls, type) and issubclass(builder.cls, GPTDataset)):
        raise CurriculumError(
            f"nca: entries need a GPTDataset for the text, this run reads it with {builder.cls.__name__}; "
            "use them in GPT-style pre-training, not in fine-tuning or with encoder models"
        )
    blends = _blend_of_each_split(builder.config)
    return blends, _read_splits(builder.config, blends)


def _given_by_blend(builder: BlendedMegatronDatasetBuilder, build: Build, curriculum: Curriculum | None, run: Run) -> Blended:
    """Ask a blend of Megatron's what its members have given, where the launch makes them sources of their own."""
    info = run.data_info
    found = None if curriculum is None else unread_blend(curriculum, info, builder.config.sequence_length)
    if found is None or info.history is None:
        return {}
    source, samples = found
    reading = next(reading for reading in info.history.readings if reading.words == source.names)
    return given_by_blend(builder, build, source, reading.asked, samples)


def _plan(
    builder: BlendedMegatronDatasetBuilder, curricula: list[Curriculum | None], blended: Blended, run: Run
) -> list[Plan | None]:
    """Lay out the data of every split."""
    return [_plan_split(builder, split, curricula[split.value], blended, run) for split in Split]


def _describe(plan: Plan | None, samples: str, config: Any, run: Run, blended: Blended) -> Datasets:
    """Tell what the training samples are made from; the text's files are read on one rank."""
    if plan is None:
        return Datasets(config, config.random_seed)
    entries, padded = plan.curriculum.entries, run.data_info.padded_vocab_size
    texts = from_rank_0(lambda: tuple(text_identity(prefix) for prefix in plan.curriculum.prefixes))
    tokens = tokens_identity(entries, samples, config.tokenizer, padded)
    history = continued_history(plan, run.data_info, blended)
    return Datasets(config, config.random_seed, tokens, texts, history)


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
        read_blend(blend, mixed=not is_list_of_sets(config, split)).measured() if mentions_nca(blend) else None
        for split, blend in zip(Split, blends, strict=True)
    ]


def _plan_split(
    builder: BlendedMegatronDatasetBuilder, split: Split, curriculum: Curriculum | None, blended: Blended, run: Run
) -> Plan | None:
    if curriculum is None:
        return None
    config, size = builder.config, builder.sizes[split.value]
    if split is Split.train:
        if size is None:
            raise CurriculumError(f"nca: entries need a number of training samples; give {run.stack.word('length')}")
        info = run.data_info
        boundaries = BatchBoundaries.from_megatron(info.batches_from)
        return plan_start(curriculum, config.sequence_length, size, boundaries, info, blended, text_identity)
    final = curriculum.final()
    if size is None:
        refuse_endless(final, split.name, run.stack.word("eval_batches"))
    # A split of no samples is built all the same, and a data loader refuses an empty one.
    return plan_training(final, config.sequence_length, max(size or 0, 1), BatchBoundaries())


def _check_sources(builder: BlendedMegatronDatasetBuilder, plans: list[Plan | None], run: Run) -> None:
    """Refuse what would fail only once samples are read, or on one rank alone while the others wait for it."""
    curricula = [plan.curriculum for plan in plans if plan]
    for entry in (entry for curriculum in curricula for entry in curriculum.entries):
        token_ids(entry, builder.config.tokenizer, run.data_info.padded_vocab_size)
        check_band(entry)
    if builder.is_built_on_rank():
        _check_texts(builder.config, plans)


def _check_texts(config: Any, plans: list[Plan | None]) -> None:
    # A blend of its own is a split's whole.
    parts = [config.split_matrix[split.value] if config.blend else (0.0, 1.0) for split in Split]
    check_texts(
        (split.name, part, plan.curriculum.prefixes) for split, part, plan in zip(Split, parts, plans, strict=True) if plan
    )


def _join(
    builder: BlendedMegatronDatasetBuilder, split: Split, plan: Plan | None, blend: Blend | None, text: Any, run: Run
) -> Any:
    """Return the dataset of one split."""
    if plan is None or not needs_schedule(plan):
        return PlainBlend(text) if isinstance(text, BlendedDataset) else text
    if blend is not None and is_list_of_sets(builder.config, split):
        return _list_of_sets(builder, split, plan, blend, text, run)
    datasets = _datasets(builder, split, plan, text, run)
    return ScheduledDataset(plan, datasets, split, LoopReminder(run, plan) if split is Split.train else None)


def _datasets(builder: BlendedMegatronDatasetBuilder, split: Split, plan: Plan, text: Any, run: Run) -> list[Any]:
    """Return a dataset for each source of a plan, None for one that it reads no longer."""
    padded, lengths = run.data_info.padded_vocab_size, plan.schedule.reached(plan.samples)
    datasets = []
    for number, (source, length) in enumerate(zip(plan.sources, lengths, strict=True)):
        if source.entry is not None:
            datasets.append(make_dataset(source.entry, source.stream, length, split, builder.config, padded))
            continue
        datasets.append(text[number] if isinstance(text, list) else text)
        _check_text_length(datasets[-1], length)
    return datasets


def _nca_datasets(
    builder: BlendedMegatronDatasetBuilder, split: Split, curriculum: Curriculum, samples: tuple[int, ...], run: Run
) -> list[Any]:
    padded = run.data_info.padded_vocab_size
    return [
        make_dataset(entry, stream, count, split, builder.config, padded)
        for entry, stream, count in zip(curriculum.entries, curriculum.streams, samples, strict=False)
    ]


def make_dataset(
    entry: NCAEntry, stream: int, samples: int, split: Split, config: Any, padded_vocab_size: int | None = None
) -> NCADataset:
    """Build the dataset of one entry.

    Args:
        entry: The entry.
        stream: Number that separates it from entries of the same process.
        samples: Length of the dataset.
        split: Which split; rules never cross splits.
        config: Megatron's GPTDatasetConfig; gives sequence length, tokenizer and the default seed.
        padded_vocab_size: Rows of the model's embedding where known.

    Returns:
        The dataset; nothing is generated until it is read.

    Raises:
        VocabularyError: The tokenizer has too few ids, or nothing that ends a document where samples hold several.
    """
    source = make_source(entry, config.random_seed, split.name, stream)
    layout = SampleLayout(config.sequence_length, bool(config.add_extra_token_to_sequence), entry.trajectory)
    ids = token_ids(entry, config.tokenizer, padded_vocab_size)
    eod = required_end_of_document(config.tokenizer, entry) if layout.ends_with_eod else None
    documents = TrajectoryDocuments(source, ids, layout, eod)
    return NCADataset(documents, entry, samples, split, config)


def _check_text_length(text: Any, wanted: int) -> None:
    if text is not None and len(text) < wanted:
        raise CurriculumError(
            f"data path: the schedule leaves {wanted:,} samples to the text, which holds {len(text):,} in one pass and has no "
            "weights to say how often to repeat it; give every entry a weight, or shorten the run"
        )


def _list_of_sets(
    builder: BlendedMegatronDatasetBuilder, split: Split, plan: Plan, blend: Blend, text: Any, run: Run
) -> list[Any]:
    """Keep several validation sets apart, in the order of the data path (``--multiple-validation-sets``)."""
    texts = iter(text if isinstance(text, list) else [text])
    # A list without a size has no entry, and does not come here.
    size, curriculum = builder.sizes[split.value] or 0, plan.curriculum
    entries = iter(_nca_datasets(builder, split, curriculum, (size,) * len(curriculum.entries), run))
    return [next(entries) if mentions_nca(([prefix], None)) else next(texts) for prefix in blend[0]]
