"""The two-run way: the checkpoint of an NCA run becomes the start of a text run, perhaps with another tokenizer.

New weights are those that a switch inside one run draws for the same seed. The result is what Megatron-LM calls a release: a
run that loads it begins at iteration 0 with its own optimizer, learning rate and random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_nca.checkpoints.folder import locate, new_checkpoint
from megatron_nca.checkpoints.reinit import InitMethods, ReinitSpec
from megatron_nca.checkpoints.release import Advance
from megatron_nca.checkpoints.torch_dist import DistCheckpoint
from megatron_nca.checkpoints.torch_format import TorchCheckpoint
from megatron_nca.errors import NCAError
from megatron_nca.training.record import RECORD

FORMATS: dict[str, type[TorchCheckpoint] | type[DistCheckpoint]] = {
    "torch": TorchCheckpoint,
    "torch_dist": DistCheckpoint,
}

ProgressMonitor = Callable[[int], AbstractContextManager[Advance]]
"""Takes the bytes to do; gives a function that takes those done."""


@dataclass(frozen=True)
class TransferRequest:
    """What the new checkpoint shall have.

    Attributes:
        parts: Parts to draw anew, of ``embeddings``, ``attention``, ``mlp`` and ``norms``.
        seed: Seed of the new weights, or None for the run's.
        vocabulary: Padded vocabulary size, or None for the old one.
        init_method_std: Standard deviation of new weights, or None for the run's.
    """

    parts: tuple[str, ...] = ("embeddings",)
    seed: int | None = None
    vocabulary: int | None = None
    init_method_std: float | None = None


@dataclass(frozen=True)
class TransferResult:
    """What was done.

    Attributes:
        format: Format of both checkpoints.
        iteration: Iteration of the old checkpoint.
        consumed_samples: Samples that the old checkpoint's run had consumed.
        seed: Seed of the new weights.
        reinitialized: Shapes of what was drawn anew, by name.
        scaling_states: Modules whose FP8 histories were cleared.
        crossed: Whether the run had already gone over to text.
    """

    format: str
    iteration: int
    consumed_samples: int
    seed: int
    reinitialized: dict[str, tuple[int, ...]]
    scaling_states: int
    crossed: bool


def transfer(
    load: Path, save: Path, request: TransferRequest, monitor: ProgressMonitor, step: int | None = None
) -> TransferResult:
    """Write a new checkpoint; the old one is left as it is.

    Args:
        load: Folder of Megatron-LM's ``--save``.
        save: The new folder.
        request: What it shall have.
        monitor: Shows the progress.
        step: Iteration of the old checkpoint, or None for its latest.

    Raises:
        NCAError: The old checkpoint cannot be used, or the new one cannot be written.
    """
    if request.vocabulary is not None and "embeddings" not in request.parts:
        raise NCAError(
            "--padded-vocab-size: another vocabulary needs new embeddings; add embeddings to --reinit, or leave it out"
        )
    with new_checkpoint(save, load) as folder:
        location = locate(load, step)
        checkpoint = FORMATS[location.format](location.folder)
        args = checkpoint.args
        seed = args.seed if request.seed is None else request.seed
        reinit = ReinitSpec(
            parts=request.parts,
            seed=seed,
            init=InitMethods.from_args(args, request.init_method_std),
            tied=not getattr(args, "untie_embeddings_and_output_weights", False),
            vocabulary=request.vocabulary,
        )
        samples = int(getattr(args, "consumed_train_samples", 0) or 0)
        crossed = bool((getattr(args, RECORD, None) or {}).get("transition_done"))
        mark: dict[str, Any] = {
            "reinit": list(request.parts),
            "seed": seed,
            "iteration": checkpoint.iteration,
            "samples": samples,
        }
        with monitor(checkpoint.size) as advance:
            written = checkpoint.write(folder, reinit, mark, advance)
    return TransferResult(
        location.format, checkpoint.iteration, samples, seed, written.reinitialized, written.scaling_states, crossed
    )
