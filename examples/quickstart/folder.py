"""The output folder: one process at a time writes it, and it holds runs of one kind of settings.

| in it | what it is |
|---|---|
| `settings.json` | of the runs; they are only continued under the same |
| `text/<fingerprint>/` | `tokenizer.json`, `text.bin`, `text.idx` |
| `with-nca/`, `baseline/` | `steps.jsonl`, `validations.jsonl`, `environment.json`, `checkpoints/` |
| `loss.png`, `trajectories.png`, `validation.csv`, `results.json` | the report |
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.quickstart.files import write_json
from examples.quickstart.journal import Journal
from examples.quickstart.settings import QuickstartError, describe_difference

LOCK = ".lock"
SETTINGS = "settings.json"
WITH_NCA = "with-nca"
BASELINE = "baseline"


class RunFolder:
    """Where one run's files lie.

    Args:
        out: The output folder.
        name: Of the run.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / name
        self.checkpoints = self.path / "checkpoints"
        self.steps = Journal(self.path / "steps.jsonl")
        self.validations = Journal(self.path / "validations.jsonl")
        self.environment = self.path / "environment.json"

    def read_environment(self) -> dict[str, Any]:
        """Return what the run was last started on."""
        return dict(json.loads(self.environment.read_text(encoding="utf-8")))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made; the system lifts the lock when this process ends, killed or not.

    Raises:
        QuickstartError: Another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise QuickstartError(f"out={folder}: process {file.read()} is training there; wait, or give another") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def claim(folder: Path, settings: dict[str, Any], fresh: bool) -> None:
    """Make a folder ready for runs of some settings.

    Args:
        folder: The output folder, locked.
        settings: Of the runs to come, as JSON has them.
        fresh: Whether to delete earlier runs.

    Raises:
        QuickstartError: The folder holds runs of other settings, or files that are not of this program.
    """
    path = folder / SETTINGS
    if not path.exists():
        _require_empty(folder)
    elif fresh:
        _delete_runs(folder)
    else:
        _require_same(folder, json.loads(path.read_text(encoding="utf-8")), settings)
    write_json(path, settings)


def _require_empty(folder: Path) -> None:
    # What a process left that was killed before it wrote its settings: names that begin with a dot.
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if others:
        raise QuickstartError(f"out={folder}: holds {others[0]!r} and no {SETTINGS}, so not a quickstart; give another folder")


def _require_same(folder: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    if there != here:
        raise QuickstartError(
            f"out={folder}: holds runs of other settings ({describe_difference(there, here)}); give these again to go on, "
            "another --out to keep both, or --fresh to delete them and start over"
        )


def _delete_runs(folder: Path) -> None:
    for name in (WITH_NCA, BASELINE):
        shutil.rmtree(folder / name, ignore_errors=True)
