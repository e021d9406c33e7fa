"""The arguments of a Megatron-LM launch that decide its curriculum, read without Megatron-LM.

A command takes them itself, or finds them in a whole command line; there it passes over what it does not know.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from megatron_nca.cli.common import UsageError, at_least, finite
from megatron_nca.cli.launch.schedule import RampupBatches, split_parts, stepwise_sizes
from megatron_nca.cli.launch.tokenizer import add_tokenizer_of_launch
from megatron_nca.data.batches import BatchBoundaries, run_steps
from megatron_nca.data.curriculum import Blend
from megatron_nca.training.data_paths import SPLITS, DataPaths, DataPathsError, read_data_paths
from megatron_nca.training.early import derive_weight_shards, refuse_unknown
from megatron_nca.training.options import DECAY_STYLES, add_arguments

WSD_STYLES = ("exponential", "linear", "cosine", "minus_sqrt")
MOST_SIZES = 100_000
MEGATRONS_SPLIT = "969, 30, 1"
"""Megatron-LM's default of ``--split``."""


@dataclass(frozen=True)
class Launch:
    """What a command line says of the data.

    Attributes:
        args: The known arguments.
        blends: The data path of train, valid and test, as Megatron splits it; None where a split has none. With one data
            path for all splits, every one of them is that path.
        per_split: Whether the splits have data paths of their own.
        samples: Training samples.
        boundaries: Where global batches begin.
    """

    args: argparse.Namespace
    blends: tuple[Blend | None, ...]
    per_split: bool
    samples: int
    boundaries: BatchBoundaries


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"command line after --: {message}")


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, named as Megatron-LM names them, and the --nca-* flags."""
    data = parser.add_argument_group("the run, as in Megatron-LM")
    data.add_argument("--data-path", nargs="+", metavar="PART", help="datasets, with or without weights")
    for split in SPLITS:
        data.add_argument(f"--{split}-data-path", nargs="+", metavar="PART", help=f"datasets of the {split} split alone")
    data.add_argument("--data-args-path", metavar="FILE", help="a file that holds what --data-path would")
    data.add_argument("--per-split-data-args-path", metavar="FILE", help="a JSON file with keys train, valid and test")
    data.add_argument("--mock-data", action="store_true", help=argparse.SUPPRESS)
    data.add_argument("--multiple-validation-sets", action="store_true", help="validation sets are read one by one")
    data.add_argument("--split", help="shares of train, valid and test (default: Megatron-LM's, 969, 30, 1)")
    data.add_argument("--seq-length", type=at_least(1), help="tokens of a sample")
    data.add_argument("--global-batch-size", type=at_least(1), help="samples of a step")
    data.add_argument("--rampup-batch-size", nargs="+", type=at_least(1), metavar="N", help="start, increment, samples")
    data.add_argument("--step-batch-size-schedule", metavar="TOKENS:SIZE", help="batch sizes by tokens, as in '0:256 10B:512'")
    data.add_argument("--train-samples", type=at_least(1), help="length of the run")
    data.add_argument("--train-iters", type=at_least(1), help="likewise, in iterations")
    data.add_argument("--dataloader-type", default="single", help=argparse.SUPPRESS)
    data.add_argument("--micro-batch-size", type=at_least(1), help=argparse.SUPPRESS)
    data.add_argument("--eval-iters", type=at_least(0), default=100, help=argparse.SUPPRESS)
    data.add_argument("--fp8-format", dest="fp8", help=argparse.SUPPRESS)
    data.add_argument("--fp8-recipe", help=argparse.SUPPRESS)
    rate = parser.add_argument_group("its learning rate, as in Megatron-LM")
    rate.add_argument("--lr", type=finite, help="peak; without it no learning rate is shown")
    rate.add_argument("--min-lr", type=finite, default=0.0)
    rate.add_argument("--decoupled-lr", type=finite, help="peak of the embeddings, where theirs is another")
    rate.add_argument("--decoupled-min-lr", type=finite)
    rate.add_argument("--lr-decay-style", choices=DECAY_STYLES, default="linear")
    rate.add_argument("--lr-wsd-decay-style", choices=WSD_STYLES, default="exponential")
    rate.add_argument("--lr-warmup-init", type=finite, default=0.0)
    rate.add_argument("--lr-warmup-fraction", type=finite)
    for name in ("decay", "warmup", "wsd-decay"):
        rate.add_argument(f"--lr-{name}-iters", type=at_least(0))
        rate.add_argument(f"--lr-{name}-samples", type=at_least(0))
    add_arguments(parser)


def read_launch(own: argparse.Namespace, words: Sequence[str]) -> Launch:
    """Read a launch from a command's own arguments, or from the words of a whole command line where there are any.

    Raises:
        UsageError: Something that the plan depends on is missing or given twice.
        NCAError: The batch sizes do not go together.
    """
    args = own
    if words:
        parser = _Parser(add_help=False, allow_abbrev=False)
        add_launch_arguments(parser)
        add_tokenizer_of_launch(parser)
        args, others = parser.parse_known_args(list(words))
        refuse_unknown(others)
        take_others(args, others)
        derive_weight_shards(args)
    if args.seq_length is not None and args.step_batch_size_schedule:
        args.global_batch_size = _stepwise(args)[-1][1]
    for flag in ("seq_length", "global_batch_size"):
        if getattr(args, flag) is None:
            raise UsageError(f"--{flag.replace('_', '-')} is missing; a plan needs it")
    if (args.train_samples is None) == (args.train_iters is None):
        raise UsageError("give the length of the run once: --train-samples, or --train-iters")
    data = _data_paths(args)
    if args.rampup_batch_size and args.train_samples is None:
        raise UsageError("--rampup-batch-size needs --train-samples: with growing batches iterations do not tell the samples")
    samples = args.train_samples or args.train_iters * args.global_batch_size
    return Launch(args, data.blends, data.per_split, samples, boundaries_of(args))


def _data_paths(args: argparse.Namespace) -> DataPaths:
    try:
        data = read_data_paths(args)
    except DataPathsError as error:
        raise UsageError(str(error)) from None
    if data.blends[0] is None and not args.mock_data:
        raise UsageError(f"{data.flag}: has nothing for the train split; a plan needs it")
    return data


def take_others(args: argparse.Namespace, words: Sequence[str]) -> None:
    """Give a launch's other flags their names in Megatron's arguments: what a check looks at may be any of them."""
    for place, word in enumerate(words):
        if word.startswith("--"):
            name, given, value = word[2:].partition("=")
            follows = words[place + 1 : place + 2]
            value = value if given else next((one for one in follows if not one.startswith("--")), "")
            found: Any = int(value) if value.isdigit() else value or True
            setattr(args, name.replace("-", "_"), found)


def _stepwise(args: argparse.Namespace) -> tuple[tuple[int, int], ...]:
    try:
        return stepwise_sizes(args.step_batch_size_schedule, args.seq_length)
    except ValueError as error:
        raise UsageError(f"--step-batch-size-schedule {args.step_batch_size_schedule}: {error}") from None


def parts_of(args: argparse.Namespace) -> list[tuple[float, float] | None]:
    """Return which part of a text each split has under ``--split``.

    Raises:
        UsageError: It is no split.
    """
    try:
        return split_parts(MEGATRONS_SPLIT if args.split is None else args.split)
    except ValueError as error:
        raise UsageError(f"--split {args.split}: {error}") from None


def boundaries_of(args: argparse.Namespace) -> BatchBoundaries:
    """Return where a run's global batches begin.

    Args:
        args: Megatron-LM's batch sizes, whichever way they are given, and the sequence length.

    Raises:
        UsageError: They do not go together.
    """
    if args.step_batch_size_schedule:
        return BatchBoundaries(steps=_stepwise(args))
    if not args.rampup_batch_size:
        return BatchBoundaries(args.global_batch_size)
    if len(args.rampup_batch_size) != 3:
        raise UsageError("--rampup-batch-size takes three numbers: start, increment and samples")
    try:
        return BatchBoundaries(steps=run_steps(_rampup(args)))
    except ValueError as error:
        raise UsageError(f"--rampup-batch-size {' '.join(map(str, args.rampup_batch_size))}: {error}") from None


def _rampup(args: argparse.Namespace) -> RampupBatches:
    start, increment, samples = args.rampup_batch_size
    if (args.global_batch_size - start) // increment > MOST_SIZES:
        raise ValueError(f"grows in more than {MOST_SIZES:,} steps; give a larger increment")
    return RampupBatches(start, increment, samples, args.global_batch_size)


def in_samples(launch: Launch, name: str) -> int | None:
    """Return ``--lr-NAME-samples``, or ``--lr-NAME-iters`` in samples; None where neither is given."""
    args: Any = launch.args
    samples, iterations = getattr(args, f"lr_{name}_samples"), getattr(args, f"lr_{name}_iters")
    if iterations is not None:
        return int(iterations) * int(args.global_batch_size)
    return None if samples is None else int(samples)
