"""The text of every split, by Megatron's own builder.

One final blend goes to it as a whole and stays what it is without the plugin. Texts of phases are built one by one, each
asked for as many samples as the schedule has for it; the way there is the builder's own, which divides the work between
threads and lets rank 0 write the index files first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.utils import Split

from megatron_nca.data.agreement import from_rank_0
from megatron_nca.data.curriculum import Plan, Source
from megatron_nca.data.history import History
from megatron_nca.data.text_chains import ContinuedBlend, TextChain, members_reached

Build = Callable[[BlendedMegatronDatasetBuilder], list[Any]]


def needs_schedule(plan: Plan) -> bool:
    """Tell whether a split is more than Megatron's own datasets."""
    return bool(plan.curriculum.entries) or not plan.text_is_one


def is_list_of_sets(config: Any, split: Split) -> bool:
    """Tell whether a split's datasets are kept apart (``--multiple-validation-sets``)."""
    return bool(config.multiple_validation_sets) and config.blend is None and split is Split.valid


def build_texts(
    builder: BlendedMegatronDatasetBuilder, build: Build, plans: list[Plan | None], history: History | None
) -> list[Any]:
    """Build the text of every split; must be called on all ranks.

    Args:
        builder: The builder as Megatron constructed it.
        build: Megatron's own ``build``.
        plans: Plans of train, validation and test, None where a split is not planned here.
        history: The training plan's history: how many samples were asked of each text, and when it was more.

    Returns:
        For each split its dataset, None without text; for a training plan whose texts are sources of their own a list, with a
        dataset or None for each source.
    """
    train = plans[Split.train.value]
    if train is None or history is None:
        return _build_blends(builder, build, plans, list(Split), None)
    if not train.text_is_one:
        held_out = _build_blends(builder, build, plans, [Split.valid, Split.test], None)
        return [_build_sources(builder, train, history), *held_out[1:]]
    asked = () if train.text_source is None else history.readings[train.text_source].asked
    built = _build_blends(builder, build, plans, list(Split), asked[0] if asked else None)
    if len(asked) > 1:
        built[0] = _continue(builder, train.sources[train.text_source or 0], built[0], asked)
    return built


def given_by_blend(
    builder: BlendedMegatronDatasetBuilder, build: Build, source: Source, asked: tuple[int, ...], samples: int
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Read off a blend of Megatron's what each of its members has given; must be called on all ranks.

    Args:
        builder: The builder as Megatron constructed it.
        build: Megatron's own ``build``.
        source: The blend.
        asked: Samples asked of it, the first time and whenever it was more.
        samples: How many of them the run has read.

    Returns:
        Prefix -> (samples asked of it, samples that it has given).
    """
    config, split = copy.copy(builder.config), Split.train.value
    blend = (list(source.prefixes), None if source.weights is None else list(source.weights))
    if config.blend:
        config.blend = blend
        config.split_matrix = [config.split_matrix[split], None, None]
    else:
        config.blend_per_split = [blend, None, None]
    dataset = build(type(builder)(builder.cls, [asked[0], 0, 0], builder.is_built_on_rank, config))[split]

    def read() -> dict[str, tuple[tuple[int, ...], int]]:
        reached = members_reached(dataset, source.weights or (), samples)
        totals = zip(*(members_reached(dataset, source.weights or (), total) for total in asked[1:]), strict=True)
        later = list(totals) or [()] * len(reached)
        first = [int(member.num_samples) for member in dataset.datasets]
        return {
            prefix: ((own, *(total for total in more if total > own)), count)
            for prefix, own, more, count in zip(source.prefixes, first, later, reached, strict=True)
        }

    return from_rank_0(read)


def _build_sources(builder: BlendedMegatronDatasetBuilder, plan: Plan, history: History) -> list[Any]:
    """Build the training texts that the plan still reads, one by one; None for every other source."""
    wanted = set(plan.curriculum.prefixes)
    numbers = [
        number for number, source in enumerate(plan.sources) if len(source.prefixes) == 1 and source.prefixes[0] in wanted
    ]
    prefixes = [plan.sources[number].prefixes[0] for number in numbers]
    # Asked for one sample at least, so that a text that is missing is found at the start.
    asked = [history.readings[number].asked or (1,) for number in numbers]
    asked = [tuple(max(total, 1) for total in totals) for totals in asked]
    first = _build_alone(builder, prefixes, [totals[0] for totals in asked], 0)
    chains = _build_behind(builder, prefixes, [[dataset] for dataset in first], asked)
    built = dict(zip(numbers, chains, strict=True))
    return [built.get(number) for number in range(len(plan.sources))]


def _continue(builder: BlendedMegatronDatasetBuilder, source: Source, text: Any, asked: tuple[int, ...]) -> Any:
    """Put what was asked for later behind the text of a run whose text is one."""
    prefixes = list(source.prefixes)
    if len(prefixes) == 1:
        return _build_behind(builder, prefixes, [[text]], [asked])[0]
    if source.weights is None or from_rank_0(lambda: len(text)) >= asked[-1]:
        return text
    weights = source.weights
    members = [None] * len(prefixes) if text is None else text.datasets
    totals = from_rank_0(lambda: list(zip(*(members_reached(text, weights, total) for total in asked), strict=True)))
    chains = _build_behind(builder, prefixes, [[member] for member in members], totals)
    return text if text is None else ContinuedBlend(text, chains, weights, asked[-1])


def _build_behind(
    builder: BlendedMegatronDatasetBuilder, prefixes: list[str], chains: list[list[Any]], asked: Sequence[Sequence[int]]
) -> list[Any]:
    """Build what texts need behind their first datasets, and chain it; ranks that build nothing follow rank 0's lengths."""
    while any(len(totals) > 1 for totals in asked):
        covered = from_rank_0(lambda: [sum(len(dataset) for dataset in chain) for chain in chains])
        missing = {
            place: next(total for total in totals if total > have) - have
            for place, (totals, have) in enumerate(zip(asked, covered, strict=True))
            if totals[-1] > have
        }
        if not missing:
            break
        link = min(len(chains[place]) for place in missing)
        places = [place for place in missing if len(chains[place]) == link]
        built = _build_alone(builder, [prefixes[place] for place in places], [missing[place] for place in places], link)
        for place, dataset in zip(places, built, strict=True):
            chains[place].append(dataset)
    return [chain[0] if len(chain) == 1 or chain[0] is None else TextChain(chain) for chain in chains]


def _build_alone(builder: BlendedMegatronDatasetBuilder, prefixes: list[str], sizes: list[int], link: int) -> list[Any]:
    """Build training texts, each for itself; every link of a chain has a shuffle of its own."""
    config = copy.copy(builder.config)
    config.random_seed += link
    part = config.split_matrix[Split.train.value] if config.blend else (0.0, 1.0)
    own = type(builder)(builder.cls, builder.sizes, builder.is_built_on_rank, config)
    built: list[Any] = own._build_megatron_datasets_parallel(prefixes, [part, None, None], [[size, 0, 0] for size in sizes])[
        Split.train.value
    ]
    return built


def _build_blends(
    builder: BlendedMegatronDatasetBuilder, build: Build, plans: list[Plan | None], splits: list[Split], asked: int | None
) -> list[Any]:
    """Build the blends of some splits as Megatron does; the training text for the samples asked of it at first."""
    config, sizes = copy.copy(builder.config), list(builder.sizes)
    for split, plan in zip(Split, plans, strict=True):
        if asked is not None and split is Split.train:
            sizes[split.value] = max(asked, 1)
            continue
        if split is not Split.train and plan is not None and sizes[split.value] == 0:
            # Megatron's loader refuses a blend of no samples, which --eval-iters 0 asks for.
            sizes[split.value] = 1
        if plan is None or plan.text_source is None or not plan.curriculum.entries or split is Split.train:
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
