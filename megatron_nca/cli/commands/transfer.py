"""``megatron-nca transfer``: the checkpoint of an NCA run becomes the start of a text run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from megatron_nca.cli.common import OK, add_command, at_least, check_folder, check_room, finite, need, print_json, progress
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training.options import BY_NAME, Options, add_argument

EXAMPLES = """  megatron-nca transfer --load /checkpoints/nca --save /checkpoints/start
  megatron-nca transfer --load /checkpoints/nca --save /checkpoints/start --padded-vocab-size 128256
  megatron-nca transfer --load /checkpoints/nca --save /checkpoints/start --reinit embeddings,norms --ckpt-step 2000

A text run starts from it with --pretrained-checkpoint /checkpoints/start, or --finetune --load /checkpoints/start."""

STACK = replace(MEGATRON_LM, name="transfer", prefix="--")
"""How this command writes the options that it shares with a launch."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers, "transfer", run, "make the start of a text run of an NCA run's Megatron-LM checkpoint", EXAMPLES
    )
    parser.add_argument("--load", type=Path, required=True, metavar="DIR", help="what the NCA run was given as --save")
    parser.add_argument("--save", type=Path, required=True, metavar="DIR", help="the new checkpoint; must not exist")
    parser.add_argument("--ckpt-step", type=at_least(1), metavar="N", help="iteration to take (default: the latest)")
    add_argument(parser, BY_NAME["reinit"], "--reinit")
    parser.add_argument(
        "--padded-vocab-size", type=at_least(1), metavar="N", help="of the text run's tokenizer (default: the checkpoint's)"
    )
    parser.add_argument("--seed", type=at_least(0), help="of the new weights (default: the checkpoint's --seed)")
    parser.add_argument(
        "--init-method-std", type=_deviation, metavar="STD", help="of the new weights (default: the checkpoint's)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the new checkpoint and tell what is in it."""
    parts = Options.read({"reinit": args.reinit}, STACK).reinit
    check_folder("--save", args.save)
    need("torch", extra="megatron")
    from megatron_nca.checkpoints.transfer import TransferRequest, transfer

    @contextmanager
    def monitor(total: int) -> Iterator[Callable[[int], None]]:
        check_room("--save", args.save, total)
        with progress("transfer", total, "B", shown=not args.json) as advance:
            yield advance

    request = TransferRequest(parts, args.seed, args.padded_vocab_size, args.init_method_std)
    done = transfer(args.load, args.save, request, monitor, args.ckpt_step)
    # A key of the JSON output is a promise; the attribute follows the words of the code.
    fields = {"renewed" if name == "reinitialized" else name: value for name, value in vars(done).items()}
    described = {"load": str(args.load), "save": str(args.save), "reinit": list(parts), **fields}
    if args.json:
        print_json(described)
        return OK
    print(f"{args.load}: {done.format}, iteration {done.iteration:,}, {done.consumed_samples:,} samples")
    for name, shape in done.reinitialized.items():
        print(f"new: {name} ({', '.join(map(str, shape))})")
    print(
        f"FP8 histories cleared in {done.scaling_states} modules, scales kept; no optimizer, random or learning-rate state kept"
    )
    if done.crossed:
        print("note: this run had already gone over to text; its embeddings were the text's")
    print(f"start the text with --pretrained-checkpoint {args.save}, or with --finetune --load {args.save}")
    return OK


def _deviation(text: str) -> float:
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be a finite number above 0")
    return value
