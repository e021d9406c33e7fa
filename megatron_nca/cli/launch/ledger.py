"""``megatron-nca plan --checkpoint``: what a run has read so far, source by source, and what a launch will add."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from megatron_nca.checkpoints.recorded import read_record
from megatron_nca.cli.common import DEFAULT_SEED, OK, UsageError, print_json, table
from megatron_nca.cli.launch.reading import Launch, parts_of, read_launch
from megatron_nca.cli.launch.validation import run_info, validated_options
from megatron_nca.data.amending import Blended, replay
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.continuing import continued_history, plan_start, unread_blend
from megatron_nca.data.curriculum import Curriculum, Plan, mentions_nca, read_blend
from megatron_nca.data.identity import text_identity
from megatron_nca.data.mixture import mixture_of, shares_of
from megatron_nca.data.run import DataInfo, Datasets
from megatron_nca.errors import NCAError
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training import phase_batches
from megatron_nca.training.options import Options
from megatron_nca.training.record import Record
from megatron_nca.training.resuming import Checkpoint, compare, data_info


def run(args: argparse.Namespace, refused: Callable[[NCAError], int]) -> int:
    """Print the ledger of a checkpoint, and of the launch that goes on from it where one is given.

    Args:
        args: The arguments of ``plan``.
        refused: Tells that the launch would be refused, and returns the exit code.
    """
    record = read_record(args.checkpoint)
    if record.history is None or record.consumed is None or record.samples is None:
        raise NCAError(
            f"--checkpoint {args.checkpoint}: its record, of version {record.version}, does not tell what was asked of each "
            "text; start once from it, save, and look at that checkpoint"
        )
    try:
        plan, train_part = _continued(record, args)
    except UsageError:
        raise
    except NCAError as error:
        return refused(error)
    described = {
        "consumed": record.consumed,
        "samples": plan.samples,
        "sequence_length": record.sequence_length,
        "data_path": [" ".join(segment.words) for segment in record.history.segments],
        "sources": list(_sources(plan, record.consumed, train_part)),
    }
    if args.json:
        print_json(described)
    else:
        for line in _lines(described):
            print(line)
    return OK


def _continued(record: Record, args: argparse.Namespace) -> tuple[Plan, float]:
    """Lay out what follows the checkpoint: by the launch, or by the record's own data path to the record's end."""
    history, consumed = record.history, record.consumed
    assert history is not None
    assert consumed is not None
    if not (args.launch or args.data_path or args.train_data_path or args.data_args_path or args.per_split_data_args_path):
        plan = replace(replay(history, record.sequence_length), samples=record.samples or consumed)
        return plan, _train_part(args)
    launch = read_launch(args, args.launch)
    options, checkpoint = validated_options(launch), Checkpoint(record, consumed)
    if launch.blends[0] is None:
        raise UsageError("--mock-data has no data path to plan; give --data-path")
    curriculum = read_blend(launch.blends[0]).measured()
    length = launch.args.seq_length
    # How many steps there have been, only the checkpoint's other arguments tell.
    info = replace(data_info(run_info(launch), checkpoint, options), iterations=None)
    blended = _blended(curriculum, info, length)
    boundaries = BatchBoundaries(begin=consumed, steps=launch.boundaries.steps)
    plan = plan_start(curriculum, length, launch.samples, boundaries, info, blended, text_identity)
    _compare(checkpoint, plan, launch, options, info, blended)
    return plan, _train_part(launch.args)


def _compare(checkpoint: Checkpoint, plan: Plan, launch: Launch, options: Options, info: DataInfo, blended: Blended) -> None:
    """Refuse what the launch would refuse of the checkpoint; tokens, which need the run's tokenizer, are left to it."""
    phase_batches.check_count(plan, run_info(launch), MEGATRON_LM)
    texts = tuple(text_identity(prefix) for prefix in plan.curriculum.prefixes)
    seed = launch.args.seed if isinstance(getattr(launch.args, "seed", None), int) else DEFAULT_SEED
    datasets = Datasets(None, seed, None, texts, continued_history(plan, info, blended))
    record = Record.of(plan, datasets, checkpoint.consumed, False) if mentions_nca(launch.blends[0]) else None
    compare(checkpoint, record, plan.switch is not None, options, MEGATRON_LM)


def _blended(curriculum: Curriculum, info: DataInfo, sequence_length: int) -> Blended:
    """Return what the members of Megatron's blend have given, within a sample of what its index will say."""
    found = unread_blend(curriculum, info, sequence_length)
    if found is None:
        return {}
    source, samples = found
    given = dict(mixture_of(shares_of(source.weights or (1.0,) * len(source.names))).counts(samples))
    return {name: ((given[place],), given[place]) for place, name in enumerate(source.names)}


def _sources(plan: Plan, consumed: int, share: float) -> Iterator[dict[str, Any]]:
    given, total = plan.schedule.counts(consumed), plan.schedule.counts(max(plan.samples, consumed))
    length = plan.sequence_length
    reached = plan.schedule.reached(consumed), plan.schedule.reached(max(plan.samples, consumed))
    for number, source in enumerate(plan.sources):
        tokens = None if source.is_nca or len(source.prefixes) != 1 else _tokens_of(source.prefixes[0])
        epochs = [None if not tokens else counts[number] * length / (tokens * share) for counts in reached]
        added = total[number] - given[number]
        yield {
            "source": source.name, "samples": given[number], "tokens": given[number] * length, "epochs": epochs[0],
            "added_samples": added, "added_tokens": added * length, "epochs_at_end": epochs[1],
        }  # fmt: skip


def _tokens_of(prefix: str) -> int | None:
    """Return how many tokens a text holds, or None where it is not here."""
    from megatron_nca.data.calibration import token_type

    index, text = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    if not (index.is_file() and text.is_file()):
        return None
    return os.path.getsize(text) // token_type(index).itemsize


def _train_part(args: argparse.Namespace) -> float:
    begin, end = parts_of(args)[0] or (0.0, 1.0)
    return end - begin


def _lines(described: dict[str, Any]) -> Iterator[str]:
    for words in described["data_path"]:
        yield f"data path: {words}"
    yield (
        f"{described['consumed']:,} samples of {described['sequence_length']:,} tokens consumed, of {described['samples']:,}\n"
    )
    header = ["source", "samples", "tokens", "epochs", "to come", "tokens to come", "epochs at the end"]
    yield from table(header, [_row(one) for one in described["sources"]])


def _row(one: dict[str, Any]) -> list[str]:
    epochs = ["" if one[name] is None else f"{one[name]:.3f}" for name in ("epochs", "epochs_at_end")]
    counts = [f"{one[name]:,}" for name in ("samples", "tokens", "added_samples", "added_tokens")]
    return [one["source"], *counts[:2], epochs[0], *counts[2:], epochs[1]]
