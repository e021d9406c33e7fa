"""Whole runs of the real stacks, a process each, on the CPU stand-in: started, resumed under another launch, and read back.

What differs between the stacks is how a change of the launch is spelt, and how a checkpoint lies on the disk.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from megatron_nca.rehearsal.checkouts import Checkout, find_checkouts
from megatron_nca.rehearsal.megatron_lm import Run
from megatron_nca.rehearsal.ports import free_ports
from megatron_nca.rehearsal.ranks import RunError
from megatron_nca.stacks import BRIDGE, MEGATRON_LM, NEMO

PROJECT = Path(__file__).parents[2]
ENTRY = "nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64"
"""5,000 tokens are 78.1 samples of 64, and end with the tenth batch of eight."""
SWITCH, STEPS, BATCH = 10, 24, 8
PATIENCE = 300


@dataclass(frozen=True)
class Change:
    """How a launch differs from the run's.

    Attributes:
        path: The whole data path, None for the run's.
        options: Ours, by name.
        skip: Steps that are passed over, counted from 0.
        loads_optimizer: Whether the checkpoint's optimizer and scheduler are loaded.
    """

    path: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    loader: str | None = None
    vocabulary: int = 256
    batch: int = BATCH
    steps: int = STEPS
    lr: float | None = None
    skip: tuple[int, ...] = ()
    loads_optimizer: bool = True


UNCHANGED = Change()


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        succeeded: Whether it ended by itself and without an error.
        printed: Everything it wrote.
        steps: For each step that was logged its loss and the learning rate beside it, as the stack shows them.
    """

    succeeded: bool
    printed: str
    steps: Mapping[int, tuple[Any, ...]]

    @property
    def switches(self) -> list[int]:
        """After which steps the transition was done."""
        return [
            max((step for step, place in self._places().items() if place < found.start()), default=0)
            for found in re.finditer("switch to text after", self.printed)
        ]

    def _places(self) -> dict[int, int]:
        found = re.finditer(r"^LOSS (\d+) |iteration +(\d+)/", self.printed, re.MULTILINE)
        return {int(match[1] or match[2]): match.start() for match in found}


class Launched:
    """A stack. ``start`` is one start of a run."""

    stack: Any
    label: str
    saved = (5, SWITCH, 15)

    def start(
        self,
        folder: Path,
        text: str,
        change: Change = UNCHANGED,
        checkpoint: Path | None = None,
        saves: bool = False,
    ) -> Outcome:
        """Start a run and wait for its end.

        Args:
            folder: The run's folder.
            text: Prefix of an indexed dataset of bytes.
            change: How it differs from the run.
            checkpoint: A folder with the one checkpoint to go on from, as ``checkpoint`` makes it.
            saves: Whether it writes checkpoints.
        """
        raise NotImplementedError

    def checkpoint(self, folder: Path, step: int, to: Path, record: str = "record") -> Path:
        """Copy one checkpoint of a run into a folder of its own.

        Args:
            folder: The run's.
            step: Its steps.
            to: Where it goes.
            record: Python that makes its record of ``record``; ``None`` takes it away.
        """
        raise NotImplementedError

    def _rewrite(self, file: Path, holder: str, key: str, record: str, python_path: str = "") -> None:
        """Rewrite the record in a file of torch's, where the stack's classes are at hand."""
        if record == "record":
            return
        script = REWRITE.format(file=str(file), holder=holder, key=key, record=record)
        paths = os.pathsep.join(filter(None, (python_path, str(PROJECT))))
        environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, env=environment, timeout=PATIENCE)


REWRITE = """
import torch
from megatron_nca.training.record import packed, unpacked
state = torch.load({file!r}, weights_only=False, map_location="cpu")
holder = {holder}
was = holder[{key!r}]
record = unpacked(was) if isinstance(was, torch.Tensor) else was
record = {record}
if record is None:
    del holder[{key!r}]
else:
    holder[{key!r}] = packed(record) if isinstance(was, torch.Tensor) else record
torch.save(state, {file!r})
"""


def _words(flag: str, *values: Any) -> list[str]:
    return [flag, *map(str, values)]


def run_script(command: Sequence[Any], folder: Path) -> tuple[bool, str]:
    """Run a script as rank 0 of one; returns whether it succeeded and what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    one_rank = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(1)[0]),
    }
    environment = {**os.environ, **one_rank, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=folder, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            succeeded = process.wait(PATIENCE) == 0
        finally:
            # What it has started, checkpoint writers for one, goes with its session.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return succeeded, log.read_text()


def read_steps(printed: str) -> dict[int, tuple[Any, ...]]:
    """Return what a script printed of every step, bit for bit."""
    return {int(step): tuple(rest.split()) for step, rest in re.findall(r"^LOSS (\d+) (.*)$", printed, re.MULTILINE)}


class MegatronLM(Launched):
    """``pretrain_gpt.py`` of a checkout."""

    stack = MEGATRON_LM

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.label = f"Megatron-LM {checkout.tag}"

    def start(
        self,
        folder: Path,
        text: str,
        change: Change = UNCHANGED,
        checkpoint: Path | None = None,
        saves: bool = False,
    ) -> Outcome:
        """Start ``pretrain_gpt.py``."""
        flags = [
            *_words("--data-path", *(change.path or (ENTRY, text))), *_words("--train-iters", change.steps),
            *_words("--global-batch-size", change.batch), "--hidden-dropout", "0", "--attention-dropout", "0",
            *_words("--ckpt-format", "torch"), "--override-opt_param-scheduler",
        ]  # fmt: skip
        for flag, value in (("--seed", change.seed), ("--dataloader-type", change.loader), ("--lr", change.lr)):
            flags += [] if value is None else _words(flag, value)
        for name, value in change.options.items():
            flags += [MEGATRON_LM.option(name)] if value is True else _words(MEGATRON_LM.option(name), value)
        flags += _words("--iterations-to-skip", *change.skip) if change.skip else []
        flags += [] if change.loads_optimizer else ["--no-load-optim"]
        flags += _words("--load", checkpoint) if checkpoint else []
        flags += [*_words("--save", folder / "checkpoint"), *_words("--save-interval", 5)] if saves else []
        run = replace(Run(self.checkout, flags=tuple(flags)), vocabulary=change.vocabulary)
        try:
            log = run.complete(folder)
        except RunError:
            return Outcome(False, (folder / "rank0.log").read_text(), {})
        steps = {one.iteration: (one.loss, one.learning_rate) for one in log.iterations if one.loss is not None}
        return Outcome(True, log.text, steps)

    def checkpoint(self, folder: Path, step: int, to: Path, record: str = "record") -> Path:
        """Copy a folder of an iteration, and name it as the latest."""
        _copy_iteration(folder / "checkpoint", step, to)
        file = to / f"iter_{step:07d}" / "mp_rank_00/model_optim_rng.pt"
        self._rewrite(file, "vars(state['args'])", "nca_curriculum", record, str(self.checkout.path))
        return to


class Bridge(Launched):
    """Bridge's ``pretrain``."""

    stack = BRIDGE
    label = "Megatron-Bridge"

    def start(
        self,
        folder: Path,
        text: str,
        change: Change = UNCHANGED,
        checkpoint: Path | None = None,
        saves: bool = False,
    ) -> Outcome:
        """Start the script of Bridge's own tests."""
        path = change.path or (ENTRY, text)
        overrides = {
            "train.global_batch_size": change.batch, "train.train_iters": change.steps,
            "tokenizer.vocab_size": change.vocabulary - 1, "checkpoint.load": checkpoint,
            "checkpoint.save": folder / "checkpoint" if saves else "null",
            "scheduler.override_opt_param_scheduler": "true", "dataset.random_seed": change.seed,
            "dataset.dataloader_type": change.loader, "optimizer.lr": change.lr,
            "checkpoint.load_optim": None if change.loads_optimizer else "false",
            "train.iterations_to_skip": str(list(change.skip)).replace(" ", "") if change.skip else None,
        }  # fmt: skip
        words = [f"{name}={value}" for name, value in overrides.items() if value is not None]
        words += [BRIDGE.option(name, value) for name, value in change.options.items()]
        script = [PROJECT / "tests/bridge/tiny_pretrain.py", text, "--folder", folder, "--path", *path, "--"]
        succeeded, printed = run_script([*script, *words], folder)
        return Outcome(succeeded, printed, read_steps(printed))

    def checkpoint(self, folder: Path, step: int, to: Path, record: str = "record") -> Path:
        """Copy a folder of an iteration, and make its train state the latest."""
        iteration = _copy_iteration(folder / "checkpoint", step, to)
        self._rewrite(iteration / "train_state.pt", "state", "nca_curriculum", record)
        shutil.copy(iteration / "train_state.pt", to / "latest_train_state.pt")
        return to


class NeMo(Launched):
    """``llm.pretrain``."""

    stack = NEMO
    label = "NeMo"
    saved = (SWITCH, 15)
    """Its checkpoint of step 5 goes when the next is complete."""

    def start(
        self,
        folder: Path,
        text: str,
        change: Change = UNCHANGED,
        checkpoint: Path | None = None,
        saves: bool = False,
    ) -> Outcome:
        """Start NeMo's example, changed."""
        data = {"paths": list(change.path or (ENTRY, text)), "global_batch_size": change.batch, "seed": change.seed}
        data |= {"dataloader_type": change.loader, **{f"nca_{name}": value for name, value in change.options.items()}}
        settings = {
            "data": {name: value for name, value in data.items() if value is not None}, "vocabulary": change.vocabulary,
            "steps": change.steps, "lr": change.lr, "loads_optimizer": change.loads_optimizer,
        }  # fmt: skip
        if checkpoint is not None:
            (folder / "tiny").mkdir(parents=True)
            (folder / "tiny/checkpoints").symlink_to(checkpoint)
        script = ["-m", "megatron_nca.rehearsal", "--plain", PROJECT / "tests/contract/launch_nemo.py"]
        succeeded, printed = run_script([*script, folder, text, json.dumps(settings)], folder)
        return Outcome(succeeded, printed, read_steps(printed))

    def checkpoint(self, folder: Path, step: int, to: Path, record: str = "record") -> Path:
        """Copy a checkpoint, under a name by which NeMo takes it for the last."""
        copied = to / f"step={step - 1}-last"
        shutil.copytree(folder / f"tiny/checkpoints/step={step - 1}", copied)
        self._rewrite(copied / "weights/common.pt", "state['callbacks']['NCACallback']", "record", record)
        return to


def _copy_iteration(checkpoints: Path, step: int, to: Path) -> Path:
    iteration = to / f"iter_{step:07d}"
    shutil.copytree(checkpoints / iteration.name, iteration)
    (to / "latest_checkpointed_iteration.txt").write_text(str(step))
    return iteration


def _has(package: str) -> bool:
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return False
    return found is not None and not str(found.origin or "").startswith(str(PROJECT))


def available() -> list[Launched]:
    """Return the real stacks that this environment has."""
    bridge = [Bridge()] if _has("megatron.bridge") else []
    nemo = [NeMo()] if _has("nemo") else []
    # The other two bring a Megatron-Core of their own.
    megatron_lm = [MegatronLM(checkout) for checkout in find_checkouts()] if not (bridge or nemo) else []
    return [*megatron_lm, *bridge, *nemo]
