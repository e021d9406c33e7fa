"""The record of a run's curriculum out of a checkpoint on disk, whichever stack wrote it; weights are not read.

Megatron-LM        an attribute of its arguments: common.pt, the storage of torch_dist, or a rank's model_optim_rng.pt
Megatron-Bridge    a tensor of train_state.pt
NeMo               the state of the callback, in weights/common.pt
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_nca.checkpoints.folder import RANK_FILE, TRACKER, last_of
from megatron_nca.errors import NCAError
from megatron_nca.training.record import CALLBACK, RECORD, Record, record_of_callback, unpacked

TRAIN_STATE, COMMON, WEIGHTS = "train_state.pt", "common.pt", "weights"


def read_record(checkpoint: Path) -> Record:
    """Read a checkpoint's record.

    Args:
        checkpoint: The folder of ``--save``, whose last checkpoint counts, or of one checkpoint.

    Raises:
        NCAError: There is no checkpoint, or none with a record.
    """
    folder = _latest(checkpoint)
    kept = _kept(folder)
    if kept is None:
        raise NCAError(
            f"--checkpoint {folder}: holds no record of a curriculum, so it was written without megatron-nca or without a "
            "word of its own in the data path; plan the launch alone"
        )
    return Record.from_state_dict(kept)


def _latest(checkpoint: Path) -> Path:
    return checkpoint / last_of(checkpoint, "--checkpoint") if (checkpoint / TRACKER).is_file() else checkpoint


def _kept(folder: Path) -> Any:
    """Return the record as the checkpoint keeps it, or None."""
    if (folder / TRAIN_STATE).is_file():
        packed = _load(folder / TRAIN_STATE).get(RECORD)
        return None if packed is None else unpacked(packed)
    if record := record_of_nemo(folder):
        return record
    return getattr(_arguments(folder), RECORD, None)


def record_of_nemo(folder: Path | str, callback: str = CALLBACK) -> Any:
    """Return the record in a checkpoint of NeMo's as the callback keeps it; None where there is none.

    Args:
        folder: Folder of the checkpoint, or of its weights.
        callback: Name of the callback whose state it is.
    """
    for path in (Path(folder, WEIGHTS, COMMON), Path(folder, COMMON)):
        if path.is_file():
            callbacks = _load(path).get("callbacks")
            state = callbacks.get(callback) if isinstance(callbacks, Mapping) else None
            return record_of_callback(state) if isinstance(state, Mapping) else None
    return None


def _arguments(folder: Path) -> Any:
    """Return Megatron-LM's arguments."""
    if (folder / COMMON).is_file():
        return _load(folder / COMMON).get("args")
    if (folder / ".metadata").is_file():
        from megatron_nca.checkpoints.torch_dist import DistCheckpoint

        return DistCheckpoint(folder).args
    ranks = sorted(folder.glob(f"mp_rank_*/{RANK_FILE}"))
    if not ranks:
        raise NCAError(
            f"--checkpoint {folder}: no checkpoint of Megatron-LM, Megatron-Bridge or NeMo; name the folder of --save, or of "
            "one checkpoint in it"
        )
    return _load(ranks[0], mmap=True).get("args")


def _load(path: Path, mmap: bool = False) -> dict[str, Any]:
    import torch

    from megatron_nca.checkpoints import pickling

    try:
        source = path if mmap else io.BytesIO(path.read_bytes())
        state = torch.load(source, map_location="cpu", mmap=mmap, weights_only=False, pickle_module=pickling)
    except Exception as error:
        raise NCAError(f"{path}: cannot be read as a file of torch.save, so it is damaged or not complete ({error})") from error
    if not isinstance(state, dict):
        raise NCAError(f"{path}: holds a {type(state).__name__}; a checkpoint is a dict")
    return state
