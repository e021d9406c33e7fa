"""The arguments of a Megatron-LM launch that decide its curriculum, read without Megatron-LM.

A command takes them itself, or finds them in a whole command line; there it passes over what it does not know.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from megatron_nca.cli.common import UsageError, whole
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import Blend

DECAY_STYLES = ("constant", "linear", "cosine", "inverse-square-root", "WSD")
WSD_STYLES = ("exponential", "linear", "cosine", "minus_sqrt")


@dataclass(frozen=True)
class Launch:
    """What a command line says of the data.

    Attributes:
        args: The known arguments.
        blend: The training data path, as Megatron splits it.
        samples: Training samples.
        boundaries: Where global batches begin.
    """

    args: argparse.Namespace
    blend: Blend
    samples: int
    boundaries: BatchBoundaries


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"command line after --: {message}")


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, named as Megatron-LM names them, and the --nca-* flags."""
    from megatron_nca.frameworks.flags import add_flags

    data = parser.add_argument_group("the run, as in Megatron-LM")
    data.add_argument("--data-path", nargs="+", metavar="PART", help="datasets, with or without weights")
    data.add_argument("--train-data-path", nargs="+", metavar="PART", help="in place of --data-path: of the training split")
    data.add_argument("--seq-length", type=whole(1), help="tokens of a sample")
    data.add_argument("--global-batch-size", type=whole(1), help="samples of a step")
    data.add_argument("--rampup-batch-size", nargs="+", type=whole(1), metavar="N", help="start, increment, samples")
    data.add_argument("--train-samples", type=whole(1), help="length of the run")
    data.add_argument("--train-iters", type=whole(1), help="likewise, in iterations")
    data.add_argument("--dataloader-type", default="single", help=argparse.SUPPRESS)
    rate = parser.add_argument_group("its learning rate, as in Megatron-LM")
    rate.add_argument("--lr", type=float, help="peak; without it no learning rate is shown")
    rate.add_argument("--min-lr", type=float, default=0.0)
    rate.add_argument("--lr-decay-style", choices=DECAY_STYLES, default="linear")
    rate.add_argument("--lr-wsd-decay-style", choices=WSD_STYLES, default="exponential")
    rate.add_argument("--lr-warmup-init", type=float, default=0.0)
    rate.add_argument("--lr-warmup-fraction", type=float)
    for name in ("decay", "warmup", "wsd-decay"):
        rate.add_argument(f"--lr-{name}-iters", type=whole(0))
        rate.add_argument(f"--lr-{name}-samples", type=whole(0))
    add_flags(parser)


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
        args, _ = parser.parse_known_args(list(words))
    for flag in ("seq_length", "global_batch_size"):
        if getattr(args, flag) is None:
            raise UsageError(f"--{flag.replace('_', '-')} is missing; a plan needs it")
    if (args.train_samples is None) == (args.train_iters is None):
        raise UsageError("give the length of the run once: --train-samples, or --train-iters")
    path = args.train_data_path or args.data_path
    if not path:
        raise UsageError("--data-path is missing, as in --data-path nca:tokens=164M /data/text_document")
    if args.rampup_batch_size and args.train_samples is None:
        raise UsageError("--rampup-batch-size needs --train-samples: with growing batches iterations do not tell the samples")
    samples = args.train_samples or args.train_iters * args.global_batch_size
    return Launch(args, _blend(path), samples, _boundaries(args))


def _blend(path: list[str]) -> Blend:
    from megatron.core.datasets.utils import get_blend_from_list

    blend: Blend = get_blend_from_list(path)
    return blend


def _boundaries(args: argparse.Namespace) -> BatchBoundaries:
    if not args.rampup_batch_size:
        return BatchBoundaries(args.global_batch_size, (0,))
    from megatron.core import num_microbatches_calculator as module

    if len(args.rampup_batch_size) != 3:
        raise UsageError("--rampup-batch-size takes three numbers: start, increment and samples")
    try:
        module.init_num_microbatches_calculator(0, args.rampup_batch_size, args.global_batch_size, 1, 1)
        return BatchBoundaries.from_megatron()
    except AssertionError as error:
        raise UsageError(f"--rampup-batch-size {' '.join(map(str, args.rampup_batch_size))}: {error}") from None
    finally:
        module.destroy_num_microbatches_calculator()


def in_samples(launch: Launch, name: str) -> int | None:
    """Return ``--lr-NAME-samples``, or ``--lr-NAME-iters`` in samples; None where neither is given."""
    args: Any = launch.args
    samples, iterations = getattr(args, f"lr_{name}_samples"), getattr(args, f"lr_{name}_iters")
    if iterations is not None:
        return int(iterations) * int(args.global_batch_size)
    return None if samples is None else int(samples)
