"""Megatron-LM's ``args`` inside a checkpoint: those of an NCA run become those of a text run's start."""

from __future__ import annotations

from typing import Any

from megatron_nca.errors import NCAError
from megatron_nca.training.record import RECORD

MARK = "nca_transfer"
"""Where the start came from, for whoever looks into the checkpoint."""

COUNTERS = ("iteration", "consumed_train_samples", "skipped_train_samples", "consumed_valid_samples")
TOKENIZER = ("tokenizer_type", "tokenizer_model", "vocab_file", "merge_file", "vocab_size", "tiktoken_pattern")
LEFT_OUT = ("no_save_optim", "no_save_rng")


def read_args(state: dict[str, Any], where: object) -> Any:
    """Return the arguments of a checkpoint's state.

    Raises:
        NCAError: It has none, so another program wrote it.
    """
    args = state.get("args")
    needed = ("seed", "num_layers", "hidden_size", "init_method_std", "tensor_model_parallel_size")
    if args is None or not all(hasattr(args, name) for name in needed):
        raise NCAError(f"{where} holds no arguments of Megatron-LM; transfer reads the checkpoints that Megatron-LM writes")
    return args


def restart(args: Any, vocabulary: int | None, mark: dict[str, Any]) -> None:
    """Make the arguments those of a run that has read no sample, in place.

    Args:
        args: Megatron-LM's arguments.
        vocabulary: The new padded vocabulary size, or None for the old one.
        mark: Remembered as ``MARK``.
    """
    values = vars(args)
    record = values.pop(RECORD, None)
    for name in COUNTERS:
        if name in values:
            values[name] = 0
    # With --use-checkpoint-args they would silently win over the text run's own.
    for name in TOKENIZER:
        if name in values:
            values[name] = None
    for name in LEFT_OUT:
        values[name] = True
    if vocabulary is not None:
        values["padded_vocab_size"] = vocabulary
    values[MARK] = {**mark, "curriculum": record}
