"""What is needed of Megatron-LM's arguments."""

from __future__ import annotations

from typing import Protocol


class Arguments(Protocol):
    """The namespace that ``megatron.training.arguments.parse_args`` returns, and ``get_args`` after it.

    Attributes:
        seed: ``--seed``.
        consumed_train_samples: Samples of all steps so far; set by ``validate_args``, counted by ``train``.
        curr_iteration: Steps so far; set by ``train``.
        dataloader_type: ``--dataloader-type``, or None before ``validate_args`` has set it.
        global_batch_size: ``--global-batch-size``.
        micro_batch_size: ``--micro-batch-size``.
        seq_length: ``--seq-length``.
        train_samples: ``--train-samples``, or None.
        train_iters: ``--train-iters``; in a run in samples set by ``update_train_iters``.
        eval_iters: ``--eval-iters``; a list with several validation sets, or None.
        lr_warmup_fraction: ``--lr-warmup-fraction``, or None.
        lr_warmup_iters: ``--lr-warmup-iters``.
        lr_warmup_samples: ``--lr-warmup-samples``.
        lr_decay_iters: ``--lr-decay-iters``, or None.
        lr_decay_samples: ``--lr-decay-samples``, or None.
        lr_wsd_decay_iters: ``--lr-wsd-decay-iters``, or None.
        lr_wsd_decay_samples: ``--lr-wsd-decay-samples``, or None.
        log_interval: ``--log-interval``, in steps.
        tensorboard_log_interval: ``--tensorboard-log-interval``, in steps.
    """

    seed: int
    consumed_train_samples: int
    curr_iteration: int
    dataloader_type: str | None
    global_batch_size: int
    micro_batch_size: int
    seq_length: int
    train_samples: int | None
    train_iters: int | None
    eval_iters: int | list[int] | None
    lr_warmup_fraction: float | None
    lr_warmup_iters: int
    lr_warmup_samples: int
    lr_decay_iters: int | None
    lr_decay_samples: int | None
    lr_wsd_decay_iters: int | None
    lr_wsd_decay_samples: int | None
    log_interval: int
    tensorboard_log_interval: int
