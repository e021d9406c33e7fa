"""What the writers of both formats share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from megatron_nca.errors import NCAError

Advance = Callable[[int], None]
"""Takes the bytes done since the last call."""

RUN_STATE = (
    "optimizer",
    "opt_param_scheduler",
    "lr_scheduler",
    "rng_state",
    "random_rng_state",
    "np_rng_state",
    "torch_rng_state",
    "cuda_rng_state",
    "rng_tracker_states",
    "rerun_state_machine",
)
"""What a checkpoint holds of a run beside its model, and a start does not."""


@dataclass
class WriteResult:
    """What a new checkpoint has that the old one had not.

    Attributes:
        reinitialized: Shapes of the parameters that were drawn anew, whole, by their names in the checkpoint.
        scaling_states: Modules whose FP8 scaling state was cleared.
    """

    reinitialized: dict[str, tuple[int, ...]] = field(default_factory=dict)
    scaling_states: int = 0


def without_run_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a start: no optimizer, no random numbers, no step counted."""
    kept = {key: value for key, value in state.items() if key not in RUN_STATE}
    for counter in ("iteration", "num_floating_point_operations_so_far"):
        if counter in kept:
            kept[counter] = type(kept[counter])(0)
    return kept


def check_vocabulary(vocabulary: int, tensor_parallel: int) -> None:
    """Refuse a vocabulary that the ranks of a checkpoint cannot share.

    Raises:
        NCAError: It is no multiple of their number.
    """
    if vocabulary % tensor_parallel:
        multiple = -(-vocabulary // tensor_parallel) * tensor_parallel
        raise NCAError(
            f"--padded-vocab-size {vocabulary}: is no multiple of the checkpoint's tensor-parallel size {tensor_parallel}; use "
            f"{multiple}, or what the text run prints as its padded vocabulary"
        )
