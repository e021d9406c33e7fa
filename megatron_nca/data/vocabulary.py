"""Vocabulary: which of the tokenizer's ids stand for the process's tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import VocabularyError

SPECIAL_ATTRIBUTES = (
    "eod", "eos", "bos", "pad", "cls", "sep", "mask", "unk",
    "eod_id", "eos_id", "bos_id", "pad_id", "cls_id", "sep_id", "mask_id", "unk_id",
    "additional_special_tokens_ids", "all_special_ids", "special_tokens_dict", "special_token_to_id", "_special_tokens",
)  # fmt: skip
"""Where Megatron's, NeMo's and Hugging Face's tokenizers, and tiktoken's, keep the ids of their special tokens."""

INNER = ("_tokenizer", "tokenizer", "_model")
"""Where one tokenizer keeps another that it wraps; Megatron-Core's keeps a library's, and that one Hugging Face's."""

DEPTH = 3


def token_ids(entry: NCAEntry, tokenizer: Any, padded_vocab_size: int | None = None) -> npt.NDArray[np.int64]:
    """Map the process's tokens on the tokenizer's ids.

    Args:
        entry: Gives the process and the way of mapping.
        tokenizer: Megatron's tokenizer.
        padded_vocab_size: Rows of the model's embedding where known; an offset may reach beyond the tokenizer up to it.

    Returns:
        int64 (config.vocab_size,), distinct ids, none of them special.

    Raises:
        VocabularyError: They do not fit; the message says how many there are, how many are wanted and what would fit.
    """
    special = special_ids(tokenizer)
    wanted = entry.config.vocab_size
    if entry.vocab_offset is None:
        return _lowest_ids(entry, int(tokenizer.vocab_size), wanted, special)
    return _ids_from(entry, entry.vocab_offset, wanted, padded_vocab_size or int(tokenizer.vocab_size), special)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Collect the ids of a tokenizer's special tokens; attributes that it lacks or refuses are passed over.

    Special are the tokens that have a name, such as the end of a document, and added or control tokens that say so of
    themselves: some tokenizers begin with a thousand of those.
    """
    holders = list(_with_inner(tokenizer, DEPTH))
    named = (_attribute(holder, name) for holder in holders for name in SPECIAL_ATTRIBUTES)
    found = [number for value in named for number in _integers(value)]
    marked = [number for holder in holders for number in (*_added_ids(holder), *_control_ids(holder))]
    return frozenset(number for number in (*found, *marked) if number >= 0)


def end_of_document(tokenizer: Any) -> int | None:
    """Return the id that ends a document, or None for a tokenizer that has none."""
    return next((number for number in _integers(_attribute(tokenizer, "eod")) if number >= 0), None)


def required_end_of_document(tokenizer: Any, entry: NCAEntry) -> int:
    """Return the id that ends a document, for an entry whose sequences hold several.

    Raises:
        VocabularyError: The tokenizer has none.
    """
    eod = end_of_document(tokenizer)
    if eod is None:
        raise VocabularyError(
            f"data path entry {entry.text!r}: the tokenizer has no end-of-document token, which ends each trajectory of a "
            "packed sequence; give the tokenizer one (eos_token of a Hugging Face tokenizer), or trajectory= no shorter than "
            "the sequence"
        )
    return eod


def _with_inner(tokenizer: Any, depth: int) -> Iterator[Any]:
    """Yield a tokenizer and those that it wraps."""
    if tokenizer is None:
        return
    yield tokenizer
    for name in INNER if depth > 1 else ():
        yield from _with_inner(_attribute(tokenizer, name), depth - 1)


def _added_ids(holder: Any) -> Iterable[int]:
    """Return the ids of Hugging Face's added tokens with ``special=True``."""
    added = _attribute(holder, "added_tokens_decoder")
    return [number for number, token in added.items() if getattr(token, "special", False)] if isinstance(added, dict) else []


def _control_ids(holder: Any) -> Iterable[int]:
    """Return the ids of SentencePiece's control pieces."""
    is_control, size = _attribute(holder, "is_control"), _attribute(holder, "get_piece_size")
    return [number for number in range(size()) if is_control(number)] if callable(is_control) and callable(size) else []


def _attribute(holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name, None)
    except (NotImplementedError, AttributeError, KeyError, TypeError, ValueError, IndexError):
        # A tokenizer without this kind of token says so in one of these ways.
        return None


def _integers(value: Any) -> Iterable[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [number for item in value for number in _integers(item)]
    return [int(value)] if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else []


def _lowest_ids(entry: NCAEntry, vocab_size: int, wanted: int, special: frozenset[int]) -> npt.NDArray[np.int64]:
    candidates = np.arange(min(vocab_size, wanted + len(special)))
    ordinary = candidates[~np.isin(candidates, list(special))]
    if len(ordinary) < wanted:
        usable = vocab_size - sum(number < vocab_size for number in special)
        raise VocabularyError(
            f"data path entry {entry.text!r}: its {wanted:,} tokens do not fit the tokenizer, which has {usable:,} ids "
            f"that are not special tokens; use {_fitting_colors(entry, usable)}a larger vocabulary"
        )
    return ordinary[:wanted].astype(np.int64)


def _ids_from(entry: NCAEntry, offset: int, wanted: int, limit: int, special: frozenset[int]) -> npt.NDArray[np.int64]:
    if offset + wanted > limit:
        highest = _highest_offset(wanted, limit, special)
        room = _fitting_colors(entry, limit) if highest is None else f"an offset of at most {highest:,}, "
        raise VocabularyError(
            f"data path entry {entry.text!r}: vocab=offset:{offset} needs ids {offset:,} to {offset + wanted - 1:,}, but the "
            f"vocabulary ends at {limit - 1:,}; use {room}or a larger vocabulary"
        )
    covered = sorted(number for number in special if offset <= number < offset + wanted)
    if covered:
        raise VocabularyError(
            f"data path entry {entry.text!r}: vocab=offset:{offset} covers the special token {covered[0]}; use vocab=shared, "
            "which passes special tokens over, or another offset"
        )
    return np.arange(offset, offset + wanted, dtype=np.int64)


def _highest_offset(wanted: int, limit: int, special: frozenset[int]) -> int | None:
    """Return the highest offset whose ids end before a limit and are not special, or None without one."""
    offset = limit - wanted
    for number in sorted(special, reverse=True):
        if offset <= number < offset + wanted:
            offset = number - wanted
    return offset if offset >= 0 else None


def _fitting_colors(entry: NCAEntry, usable: int) -> str:
    """Name the most colours that would fit, for the error's remedy."""
    area = entry.config.patch**2
    colors = max((k for k in range(2, entry.config.colors) if k**area + 2 <= usable), default=None)
    return f"colors={colors} or fewer (patch={entry.config.patch}), a smaller patch, or " if colors else "a smaller patch or "
