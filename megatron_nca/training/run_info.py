"""What a stack tells of a run."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_nca.data.curriculum import Blend
from megatron_nca.interfaces.megatron_lm import Arguments


@dataclass(frozen=True)
class RunInfo:
    """Facts about a run, as its stack knows them at the time.

    Attributes:
        seed: Seed of new weights; None for the data's.
        consumed_samples: Samples of the steps so far.
        iteration: Steps so far.
        padded_vocab_size: Rows of the model's embedding, or None where it is not known yet.
        loader: Kind of data loader, as Megatron's ``--dataloader-type`` names it; None for the usual one.
        blends: Train, valid and test data where the launch is known before its datasets are built; None elsewhere.
        validation_sets_apart: Whether validation sets are read one by one, and not as a mixture.
        global_batch_size: Samples of a step, once batches have stopped growing.
        micro_batch_size: Samples of a forward pass.
        eval_batch_sizes: Global and micro-batch size of a validation, where they differ from training's.
        sequence_length: Tokens of a sample, where the launch is known before its datasets are built.
        train_samples: Length of the run where it was given in samples, else None.
        train_iterations: Length of the run where it was given in steps, else None.
        text_warmup_fraction: Warm-up as a share of the decay, where the launch gives it so.
        eval_batches: Global batches of a validation; 0 for none, None where it is not known.
        replays_steps: Whether a CUDA graph replays whole steps, so that no Python runs in them.
        counts_from_start: Whether steps are counted from the run's start, in batches of one size, wherever this start is.
        args: Megatron-LM's arguments, for what only they can tell; None on other stacks.
    """

    seed: int | None = None
    consumed_samples: int = 0
    iteration: int = 0
    padded_vocab_size: int | None = None
    loader: str | None = None
    blends: tuple[Blend | None, ...] | None = None
    validation_sets_apart: bool = False
    global_batch_size: int | None = None
    micro_batch_size: int | None = None
    eval_batch_sizes: tuple[int, int] | None = None
    sequence_length: int | None = None
    train_samples: int | None = None
    train_iterations: int | None = None
    text_warmup_fraction: float | None = None
    eval_batches: int | None = None
    replays_steps: bool = False
    counts_from_start: bool = False
    args: Arguments | None = None


def eval_batches(eval_iters: int | list[int] | None) -> int:
    """Return the global batches of a validation as Megatron's ``eval_iters`` gives them, the most of several sets."""
    return max(eval_iters) if isinstance(eval_iters, list) else eval_iters or 0


def eval_batch_sizes(args: Arguments) -> tuple[int, int] | None:
    """Return a validation's global and micro batch, where it has its own."""
    # Versions differ in whether validation has batch sizes of its own.
    sizes = getattr(args, "eval_global_batch_size", None), getattr(args, "eval_micro_batch_size", None)
    if not any(sizes):
        return None
    return sizes[0] or args.global_batch_size, sizes[1] or args.micro_batch_size


def replays_steps(args: Arguments) -> bool:
    """Tell whether a CUDA graph replays whole steps, so that no Python runs in them."""
    scopes = getattr(args, "cuda_graph_scope", None) or ()
    names = [str(scope) for scope in scopes] if isinstance(scopes, (list, tuple)) else [str(scopes)]
    return getattr(args, "cuda_graph_impl", None) == "full_iteration" or any("full_iteration" in name for name in names)
