"""The data path of each split out of Megatron-LM's arguments, whichever of its four ways a launch takes; without Megatron-LM.

--data-path WORDS                          one for all splits
--data-args-path FILE                      likewise, in a file
--train-data-path WORDS, --valid-..., --test-...
--per-split-data-args-path FILE            likewise, in a JSON file with the keys train, valid, test
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from megatron_nca.data.curriculum import Blend
from megatron_nca.data.phase_word import blend_of
from megatron_nca.errors import NCAError

SPLITS = ("train", "valid", "test")
FLAGS = ("data-path", *(f"{split}-data-path" for split in SPLITS))
"""Flags of words."""
FILE_FLAGS = ("data-args-path", "per-split-data-args-path")
PER_SPLIT, EACH = "--per-split-data-args-path", "--train-data-path and its like"


class DataPathsError(NCAError):
    """The data are given in no way that Megatron-LM takes, or in several; it has an error of its own for most of them."""


@dataclass(frozen=True)
class DataPaths:
    """What a launch reads.

    Attributes:
        blends: Blends of train, valid and test, as Megatron splits them; None where a split has none. With one data path for
            all splits, every one of them is that path.
        per_split: Whether the splits have data paths of their own.
        flag: Which flag they come from.
    """

    blends: tuple[Blend | None, ...]
    per_split: bool
    flag: str


def read_data_paths(args: argparse.Namespace) -> DataPaths:
    """Read the data of a launch.

    Args:
        args: With the attributes of ``FLAGS`` and ``FILE_FLAGS``, None for what is not given, and ``mock_data``.

    Raises:
        DataPathsError: They are not given, given twice, or a file is not readable.
    """
    if getattr(args, "mock_data", False):
        return DataPaths((None, None, None), False, "--mock-data")
    own = [getattr(args, f"{split}_data_path") for split in SPLITS]
    given = {
        "--data-path": args.data_path,
        "--data-args-path": args.data_args_path,
        PER_SPLIT: args.per_split_data_args_path,
        EACH: next(filter(None, own), None),
    }
    names = [name for name, value in given.items() if value]
    if not names:
        raise DataPathsError("--data-path is missing, as in --data-path nca:tokens=164M /data/text_document")
    if len(names) > 1:
        raise DataPathsError(f"the data are given by {' and by '.join(names)}; Megatron-LM reads one of them, give one")
    if args.per_split_data_args_path:
        own = _per_split_file(args.per_split_data_args_path)
    elif args.data_path or args.data_args_path:
        own = [args.data_path or _read(args.data_args_path, "--data-args-path").split()] * len(SPLITS)
    return DataPaths(tuple(blend_of(path) if path else None for path in own), names[0] in (PER_SPLIT, EACH), names[0])


def _per_split_file(name: str) -> list[list[str] | None]:
    try:
        found = json.loads(_read(name, PER_SPLIT))
    except (ValueError, RecursionError) as error:
        raise DataPathsError(f"{PER_SPLIT} {name}: is no JSON ({error})") from None
    if not isinstance(found, dict) or set(SPLITS) - found.keys():
        raise DataPathsError(
            f"{PER_SPLIT} {name}: must be an object with the keys {', '.join(SPLITS)}, null or empty for no data"
        )
    parts = [value.split() if isinstance(value, str) else value for value in (found[split] for split in SPLITS)]
    if not all(part is None or (isinstance(part, list) and all(isinstance(word, str) for word in part)) for part in parts):
        raise DataPathsError(f"{PER_SPLIT} {name}: each split must be a string, or a list of strings")
    return parts


def _read(name: str, flag: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataPathsError(f"{flag} {name}: cannot be read ({error})") from None
