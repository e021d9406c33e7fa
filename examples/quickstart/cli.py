"""The command line: its arguments are the fields of `Settings` and `Launch`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from examples.quickstart.settings import Launch, Settings
from megatron_nca.data.entry import parse_count
from megatron_nca.errors import ConfigError

DESCRIPTION = """\
Train a small GPT on this machine's CPU, or its GPU, twice from the same seed: with and without a phase of neural cellular
automata before the text. Then compare. Stopped at any moment, the same command goes on where it was; once finished, it reports
again."""


def count(text: str) -> int:
    """Read a whole number, also with K, M or B, as in 800K."""
    try:
        return parse_count("count", text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error.problem}") from None


HELP: dict[str, tuple[Callable[[str], Any], str]] = {
    "entry": (str, "the NCA phase, as it would stand in --data-path"),
    "text_tokens": (count, "text of each run, in tokens, rounded up to whole steps"),
    "seed": (int, "of weights, text order and automata"),
    "layers": (int, "transformer layers"),
    "hidden": (int, "width of the model"),
    "heads": (int, "attention heads"),
    "vocab_size": (count, "size of the tokenizer; the entry needs colors**(patch*patch) + 2 of its ids"),
    "sequence_length": (count, "tokens of a sample"),
    "global_batch": (count, "samples of an optimizer step"),
    "lr": (float, "peak learning rate on text, of both runs"),
    "embedding_lr": (float, "peak learning rate on text of input and output embeddings, of both runs"),
    "nca_lr": (float, "peak learning rate of the NCA phase"),
    "warmup": (float, "share of each phase over which the learning rate rises"),
    "eval_every": (count, "text tokens between two validations"),
    "eval_samples": (count, "validation samples"),
    "out": (Path, "output folder"),
    "workers": (int, "data loader processes of each rank; 0 loads in the training process"),
    "checkpoint_every": (count, "steps between two checkpoints"),
}


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[Settings, Launch]:
    """Read the command line.

    Args:
        arguments: By default the process's own.

    Returns:
        What decides the result, and where and how to run.

    Raises:
        QuickstartError: A value is out of range.
        EntryError: The entry is not usable.
        SystemExit: After --help, or for an argument that does not exist or is not of its kind.
    """
    parser = _build_parser()
    values = vars(parser.parse_args(arguments))
    steps = values.pop("text_steps")
    if steps is not None:
        values["text_tokens"] = steps * values["global_batch"] * values["sequence_length"]
    launch = {field.name: values.pop(field.name) for field in fields(Launch)}
    return Settings(**values), Launch(**launch)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.quickstart",
        description=DESCRIPTION,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    result = parser.add_argument_group("what decides the result")
    length = result.add_mutually_exclusive_group()
    for field in fields(Settings):
        _add(length if field.name == "text_tokens" else result, field)
    length.add_argument("--text-steps", type=count, metavar="N", help="text of each run, in steps, instead of --text-tokens")
    place = parser.add_argument_group("where and how")
    for field in fields(Launch):
        if field.name in HELP:
            _add(place, field)
    place.add_argument("--fresh", action="store_true", help="delete what the folder holds of earlier runs, and start over")
    return parser


def _add(group: Any, field: Field[Any]) -> None:
    kind, text = HELP[field.name]
    assert field.default is not MISSING
    name = f"--{field.name.replace('_', '-')}"
    metavar = {count: "N", int: "N", float: "X", Path: "FOLDER", str: "ENTRY"}[kind]
    group.add_argument(name, type=kind, default=field.default, metavar=metavar, help=text)
