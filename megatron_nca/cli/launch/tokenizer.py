"""The tokenizer as far as a command needs it: how many ids there are, and which of them are special."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_nca.cli.common import UsageError, at_least

DEFAULT_VOCAB_SIZE = 50_257
"""GPT-2's, whose last id is its end of document."""
END_OF_DOCUMENT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>")
LARGEST_ID = 1 << 31


@dataclass(frozen=True)
class Vocabulary:
    """What Megatron's datasets ask of a tokenizer.

    Attributes:
        vocab_size: Number of ids, special ones included.
        eod: Id that ends a document.
        all_special_ids: Ids that no process token may have.
        pad: Id that fills up a sequence; none here.
    """

    vocab_size: int = DEFAULT_VOCAB_SIZE
    eod: int = DEFAULT_VOCAB_SIZE - 1
    all_special_ids: tuple[int, ...] = ()
    pad: int = -1

    @property
    def unique_identifiers(self) -> dict[str, Any]:
        """What Megatron's index files are keyed by."""
        return {"class": "Vocabulary", "vocab_size": self.vocab_size, "eod": self.eod, "special": list(self.all_special_ids)}


def add_tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that tell a command about the run's tokenizer."""
    group = parser.add_argument_group("the run's tokenizer, which decides the ids of the tokens (default: GPT-2's 50,257 ids)")
    group.add_argument("--tokenizer", metavar="PATH", help="a Hugging Face tokenizer.json, or the folder that holds it")
    group.add_argument("--vocab-size", type=at_least(1), help="number of ids, special ones included")
    group.add_argument("--eod", type=at_least(0), metavar="ID", help="end of document (default: the last id, or the file's)")
    group.add_argument("--special-ids", metavar="ID,ID", default="", help="ids that must not be used")


def read_vocabulary(args: argparse.Namespace) -> Vocabulary:
    """Make the vocabulary of a command's arguments.

    Raises:
        UsageError: They contradict each other, or the file is none.
    """
    special = _ids(args.special_ids)
    if args.tokenizer:
        if args.vocab_size is not None:
            raise UsageError("--tokenizer tells the size of the vocabulary itself; leave out --vocab-size")
        return _from_file(Path(args.tokenizer), args.eod, special)
    size = args.vocab_size or DEFAULT_VOCAB_SIZE
    return _checked(size, size - 1 if args.eod is None else args.eod, special)


def add_tokenizer_of_launch(parser: argparse.ArgumentParser) -> None:
    """Add Megatron-LM's own arguments that tell about the tokenizer, to read a whole command line."""
    for name in ("--tokenizer-type", "--tokenizer-model"):
        parser.add_argument(name)
    parser.add_argument("--vocab-size", type=at_least(1))


def read_vocabulary_of(args: argparse.Namespace, launch: argparse.Namespace) -> tuple[Vocabulary, str]:
    """Make the vocabulary of a command's own arguments or, where they say nothing, of a launch's.

    Args:
        args: The command's arguments, with those of ``add_tokenizer_arguments``.
        launch: The launch's arguments, with those of ``add_tokenizer_of_launch``, or ``args`` again.

    Returns:
        The vocabulary, and where it comes from, for people.

    Raises:
        UsageError: An error of ``read_vocabulary``.
    """
    if args.tokenizer or args.vocab_size is not None:
        return read_vocabulary(args), "--tokenizer" if args.tokenizer else "--vocab-size"
    model = getattr(launch, "tokenizer_model", None)
    if model and str(launch.tokenizer_type).startswith("HuggingFace") and _is_local(Path(model)):
        return read_vocabulary(argparse.Namespace(**{**vars(args), "tokenizer": model})), "--tokenizer-model of the launch"
    size = getattr(launch, "vocab_size", None)
    if size is not None:
        return read_vocabulary(argparse.Namespace(**{**vars(args), "vocab_size": size})), "--vocab-size of the launch"
    return read_vocabulary(args), "assumed, GPT-2's; --tokenizer or --vocab-size tells"


def _is_local(path: Path) -> bool:
    return path.is_file() or (path / "tokenizer.json").is_file()


def _ids(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--special-ids {text}: must be ids separated by commas, as in 0,1,2")
    return tuple(map(int, parts))


def _checked(size: int, eod: int, special: Sequence[int]) -> Vocabulary:
    outside = [number for number in (eod, *special) if number >= size]
    if outside:
        raise UsageError(f"id {outside[0]:,} lies outside the vocabulary, whose ids end at {size - 1:,}; give --vocab-size")
    return Vocabulary(size, eod, tuple(sorted({eod, *special})))


def _from_file(path: Path, eod: int | None, special: Sequence[int]) -> Vocabulary:
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        added = {token["content"]: _id(token["id"]) for token in content.get("added_tokens", ())}
        marked = [_id(token["id"]) for token in content.get("added_tokens", ()) if token.get("special")]
        vocab = content["model"]["vocab"]
        # A unigram model lists its pieces, the others map them to ids.
        ids = range(len(vocab)) if isinstance(vocab, list) else [_id(number) for number in vocab.values()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--tokenizer {path}: cannot be read ({error}); give a tokenizer.json") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"--tokenizer {path}: is no tokenizer.json of Hugging Face; give --vocab-size and --eod") from None
    if eod is None:
        eod = next((added[name] for name in END_OF_DOCUMENT if name in added), None)
    if eod is None:
        raise UsageError(f"--tokenizer {path}: none of {', '.join(END_OF_DOCUMENT)} is among its added tokens; give --eod ID")
    return _checked(max([*ids, *added.values()]) + 1, eod, [*marked, *special])


def _id(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST_ID:
        raise ValueError(value)
    return value
