"""Vocabulary: which of the tokenizer's ids stand for the process's tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import VocabularyError

SPECIAL_ATTRIBUTES = (
    "eod", "eos", "bos", "pad", "cls", "sep", "mask", "unk",
    "eod_id", "eos_id", "bos_id", "pad_id", "cls_id", "sep_id", "mask_id", "unk_id",
    "additional_special_tokens_ids", "all_special_ids", "special_tokens_dict",
)  # fmt: skip
"""Where Megatron's, NeMo's and Hugging Face's tokenizers keep the ids of their special tokens."""


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
    """Collect the ids of a tokenizer's special tokens; attributes that it lacks or refuses are passed over."""
    holders = [tokenizer, getattr(tokenizer, "_tokenizer", None), getattr(tokenizer, "tokenizer", None)]
    found = (_attribute(holder, name) for holder in holders if holder is not None for name in SPECIAL_ATTRIBUTES)
    return frozenset(number for value in found for number in _integers(value) if number >= 0)


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
        room = f"an offset of at most {limit - wanted:,}, " if limit >= wanted else _fitting_colors(entry, limit)
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


def _fitting_colors(entry: NCAEntry, usable: int) -> str:
    """Name the most colours that would fit, for the error's remedy."""
    area = entry.config.patch**2
    colors = max((k for k in range(2, entry.config.colors) if k**area + 2 <= usable), default=None)
    return f"colors={colors} or fewer (patch={entry.config.patch}), a smaller patch, or " if colors else "a smaller patch or "
