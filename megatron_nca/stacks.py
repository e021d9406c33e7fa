"""The stacks a run can be on, and how each writes what a message has to name.

One message serves every stack: it asks the stack for the spelling of an option of ours and for the stack's own word of a
setting, so that a user of NeMo reads of ``trainer.max_steps`` where one of Megatron-LM reads of ``--train-iters``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SETTINGS = (
    "data_path", "loader", "length", "samples", "batch", "eval_batches", "decay", "warmup", "decoupled", "new_start",
    "text_first",
)  # fmt: skip
"""What a message may have to name of a stack: each stack has a word for each."""


@dataclass(frozen=True)
class Stack:
    """A training framework, as its users write its settings.

    Attributes:
        name: The framework's name.
        prefix: What stands before the name of an option of ours.
        separator: What stands between the words of that name.
        assignment: What stands between an option and its value.
        in_python: Whether options are arguments of a call, so that a word is a string.
        words: The stack's own settings, by the names of ``SETTINGS``.
    """

    name: str
    prefix: str
    separator: str
    assignment: str
    words: Mapping[str, str]
    in_python: bool = False

    def option(self, name: str, value: object = None) -> str:
        """Write an option of ours, with a value where one is given, as a user of this stack would."""
        written = self.prefix + name.replace("_", self.separator)
        if value is None or (value is True and self.assignment == " "):
            return written
        return f"{written}{self.assignment}{self._literal(value)}"

    def _literal(self, value: object) -> str:
        if self.in_python:
            return repr(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def word(self, name: str) -> str:
        """Return the stack's own word for a setting of ``SETTINGS``."""
        return self.words[name]


MEGATRON_LM = Stack(
    name="Megatron-LM",
    prefix="--nca-",
    separator="-",
    assignment=" ",
    words={
        "data_path": "--data-path",
        "loader": "--dataloader-type single",
        "length": "--train-iters or --train-samples",
        "samples": "--train-samples",
        "batch": "--global-batch-size",
        "eval_batches": "--eval-iters",
        "decay": "--lr-decay-iters or --lr-decay-samples",
        "warmup": "--lr-warmup-iters, --lr-warmup-samples or --lr-warmup-fraction",
        "decoupled": "--decoupled-lr",
        "new_start": "--finetune, which starts the curriculum with the checkpoint's weights",
        "text_first": "--data-path nca:tokens=164M /data/text_document",
    },
)

NEMO = Stack(
    name="NeMo",
    in_python=True,
    prefix="nca_",
    separator="_",
    assignment="=",
    words={
        "data_path": "paths",
        "loader": "dataloader_type='single'",
        "length": "trainer.max_steps",
        "samples": "num_train_samples",
        "batch": "global_batch_size",
        "eval_batches": "trainer.limit_val_batches",
        "decay": "trainer.max_steps",
        "warmup": "optim.lr_scheduler.warmup_steps",
        "decoupled": "optim.config.decoupled_lr",
        "new_start": "resume.restore_config, which starts the curriculum with the checkpoint's weights",
        "text_first": "with_nca(recipe, 'nca:tokens=164M', '/data/text_document')",
    },
)

BRIDGE = Stack(
    name="Megatron-Bridge",
    prefix="nca.",
    separator="_",
    assignment="=",
    words={
        "data_path": "dataset.blend",
        "loader": "dataset.dataloader_type=single",
        "length": "train.train_iters or train.train_samples",
        "samples": "train.train_samples",
        "batch": "train.global_batch_size",
        "eval_batches": "train.eval_iters",
        "decay": "scheduler.lr_decay_iters or scheduler.lr_decay_samples",
        "warmup": "scheduler.lr_warmup_iters, lr_warmup_samples or lr_warmup_fraction",
        "decoupled": "optimizer.decoupled_lr",
        "new_start": "checkpoint.pretrained_checkpoint, which starts the curriculum with the checkpoint's weights",
        "text_first": "with_nca(cfg, 'nca:tokens=164M', '/data/text_document')",
    },
)

CORE = Stack(
    name="Megatron-Core",
    in_python=True,
    prefix="",
    separator="_",
    assignment="=",
    words={
        "data_path": "the blend",
        "loader": "a loader that reads samples in order",
        "length": "the number of training samples",
        "samples": "the number of training samples",
        "batch": "the global batch size",
        "eval_batches": "the number of evaluation samples",
        "decay": "lr_decay_steps",
        "warmup": "lr_warmup_steps",
        "decoupled": "decoupled_lr of OptimizerConfig",
        "new_start": "run.restore(None, 0), which starts the curriculum with the checkpoint's weights",
        "text_first": "'nca:tokens=164M', '/data/text_document'",
    },
)
"""A loop of one's own on Megatron-Core; its options are the arguments of ``Options``."""

STACKS = (MEGATRON_LM, NEMO, BRIDGE, CORE)
