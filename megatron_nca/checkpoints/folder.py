"""Folders of checkpoints: which one ``--load`` means, of what format it is, and a new one that is complete or absent."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from megatron_nca.errors import NCAError

TRACKER = "latest_checkpointed_iteration.txt"
RELEASE = "release"
"""What Megatron calls a checkpoint of weights alone, which a run starts from at iteration 0, without an optimizer's state."""

RANK_FILE = "model_optim_rng.pt"
CONFIG = "metadata.json"


@dataclass(frozen=True)
class CheckpointLocation:
    """A checkpoint on disk.

    Attributes:
        folder: Folder of one iteration.
        format: ``torch`` or ``torch_dist``.
    """

    folder: Path
    format: str


def locate(load: Path, step: int | None = None) -> CheckpointLocation:
    """Find the checkpoint that Megatron-LM's ``--load`` and ``--ckpt-step`` would.

    Raises:
        NCAError: There is none, or of a format that is not known.
    """
    if step is None:
        if not (load / TRACKER).is_file():
            raise NCAError(
                f"--load {load}: no checkpoint of Megatron-LM, whose {TRACKER} is missing; name the folder of --save"
            )
        name = last_of(load, "--load")
    else:
        name = f"iter_{step:07d}"
    folder = load / name
    if not folder.is_dir():
        present = ", ".join(sorted(path.name for path in load.glob("iter_*"))) or "no iteration"
        raise NCAError(f"--load {load}: {folder.name} is not there; found {present}")
    return CheckpointLocation(folder, _format(folder))


def last_of(saved: Path, flag: str) -> str:
    """Return the name of the folder that a run's tracker calls the last checkpoint.

    Args:
        saved: The folder of ``--save``, which has a tracker.
        flag: What the user named it by.

    Raises:
        NCAError: The tracker says neither an iteration nor that it is a release.
    """
    written = (saved / TRACKER).read_text(encoding="utf-8", errors="replace").strip()
    if written == RELEASE:
        return RELEASE
    if not re.fullmatch(r"[0-9]{1,18}", written):
        raise NCAError(f"{flag} {saved}: {TRACKER} says {written[:40]!r}; it should be an iteration, or {RELEASE}")
    return f"iter_{int(written):07d}"


def _format(folder: Path) -> str:
    if (folder / CONFIG).is_file():
        backend = _backend(folder / CONFIG)
        if backend == "torch_dist" and (folder / ".metadata").is_file():
            return "torch_dist"
        found = f"torch_dist without its .metadata: {folder} is not complete" if backend == "torch_dist" else str(backend)
    elif any(folder.glob(f"mp_rank_*/{RANK_FILE}")):
        return "torch"
    else:
        found = "torch_dcp or fsdp_dtensor" if (folder / ".metadata").is_file() else "none that Megatron-LM writes"
    raise NCAError(
        f"--load: the format of {folder} is {found}; transfer knows torch and torch_dist. Megatron-LM converts others: load "
        "the checkpoint and save it with --ckpt-format torch_dist"
    )


def _backend(config: Path) -> str | None:
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise NCAError(f"{config}: is no JSON, so the checkpoint is damaged or not complete ({error})") from error
    if not isinstance(described, dict):
        raise NCAError(f"{config}: holds a {type(described).__name__}; Megatron-LM writes an object there")
    return described.get("sharded_backend")


@contextmanager
def new_checkpoint(save: Path, load: Path) -> Iterator[Path]:
    """Give a folder to write a checkpoint into, which becomes ``save`` at the end, or vanishes after an error.

    Args:
        save: Must not exist.
        load: What is read, which must stay as it is.

    Yields:
        The folder for Megatron's files.

    Raises:
        NCAError: The name is taken, or its folder is missing.
    """
    if save.exists() or save.is_symlink():
        raise NCAError(f"--save {save}: is there already; transfer writes a new folder and changes none")
    if not save.parent.is_dir():
        raise NCAError(f"--save {save}: there is no folder {save.parent}; make it first")
    if load.resolve() in save.resolve().parents:
        raise NCAError(f"--save {save}: lies inside --load {load}, which transfer leaves as it is; choose a place outside")
    temporary = Path(tempfile.mkdtemp(prefix=f".{save.name}.", dir=save.parent))
    try:
        folder = temporary / RELEASE
        folder.mkdir()
        yield folder
        (temporary / TRACKER).write_text(RELEASE, encoding="utf-8")
        _flush(temporary)
        # mkdtemp's folders are their owner's alone; a checkpoint is as open as any other file.
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(save)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _flush(folder: Path) -> None:
    """Put every file on disk before the folder gets its name."""
    for path in folder.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
