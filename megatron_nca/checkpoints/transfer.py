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
from megatron_nca.checkpoints.renewal import InitMethods, Renewal
from megatron_nca.checkpoints.torch_dist import DistCheckpoint
from megatron_nca.checkpoints.torch_format import TorchCheckpoint
from megatron_nca.checkpoints.written import Advance
from megatron_nca.errors import NCAError
from megatron_nca.training.record import RECORD

FORMATS: dict[str, type[TorchCheckpoint] | type[DistCheckpoint]] = {
    "torch": TorchCheckpoint,
    "torch_dist": DistCheckpoint,
}

Watch = Callable[[int], AbstractContextManager[Advance]]
"""Takes the bytes to do; gives a function that takes those done."""


@dataclass(frozen=True)
class Wish:
    """What the new checkpoint shall have.

    Attributes:
        parts: To draw anew, of ``embeddings``, ``attention``, ``mlp`` and ``norms``.
        seed: Of the new weights, or None for the run's.
        vocabulary: Padded vocabulary size, or None for the old one.
        init_method_std: Standard deviation of new weights, or None for the run's.
    """

    parts: tuple[str, ...] = ("embeddings",)
    seed: int | None = None
    vocabulary: int | None = None
    init_method_std: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What was done.

    Attributes:
        format: Of both checkpoints.
        iteration: Of the old one.
        consumed_samples: Of the old one.
        seed: Of the new weights.
        renewed: Shapes of what was drawn anew, by name.
        scaling_states: Modules whose FP8 histories were cleared.
        crossed: Whether the run had already gone over to text.
    """

    format: str
    iteration: int
    consumed_samples: int
    seed: int
    renewed: dict[str, tuple[int, ...]]
    scaling_states: int
    crossed: bool


def transfer(load: Path, save: Path, wish: Wish, watch: Watch, step: int | None = None) -> Outcome:
    """Write a new checkpoint; the old one is left as it is.

    Args:
        load: Folder of Megatron-LM's ``--save``.
        save: The new folder.
        wish: What it shall have.
        watch: Shows the progress.
        step: Iteration of the old checkpoint, or None for its latest.

    Raises:
        NCAError: The old checkpoint cannot be used, or the new one cannot be written.
    """
    if wish.vocabulary is not None and "embeddings" not in wish.parts:
        raise NCAError(
            "--padded-vocab-size: another vocabulary needs new embeddings; add embeddings to --reinit, or leave it out"
        )
    with new_checkpoint(save, load) as folder:
        located = locate(load, step)
        checkpoint = FORMATS[located.format](located.folder)
        args = checkpoint.args
        seed = args.seed if wish.seed is None else wish.seed
        renewal = Renewal(
            parts=wish.parts,
            seed=seed,
            init=InitMethods.from_args(args, wish.init_method_std),
            tied=not getattr(args, "untie_embeddings_and_output_weights", False),
            vocabulary=wish.vocabulary,
        )
        samples = int(getattr(args, "consumed_train_samples", 0) or 0)
        crossed = bool((getattr(args, RECORD, None) or {}).get("transition_done"))
        mark: dict[str, Any] = {"reinit": list(wish.parts), "seed": seed, "iteration": checkpoint.iteration, "samples": samples}
        with watch(checkpoint.size) as advance:
            written = checkpoint.write(folder, renewal, mark, advance)
    return Outcome(located.format, checkpoint.iteration, samples, seed, written.renewed, written.scaling_states, crossed)
