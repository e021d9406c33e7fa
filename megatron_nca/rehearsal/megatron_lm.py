"""Runs of Megatron-LM's `pretrain_gpt.py` on the stand-in: described, started, killed at an iteration, read back.

```python
run = Run(find_checkouts()[0], flags=("--data-path", "/data/text_document", "--train-iters", "20"), tensor_parallel=2)
log = run.complete(folder)                    # a TrainingLog
run.kill_at(7, folder)                        # SIGKILL to every process at iteration 7
```

The same flags serve Megatron-LM 0.14 to 0.20; what differs is a table here.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import megatron_nca
from megatron_nca.rehearsal import holding
from megatron_nca.rehearsal.checkouts import Checkout, compile_helpers, extension_suffix
from megatron_nca.rehearsal.ports import free_ports
from megatron_nca.rehearsal.training_log import TrainingLog, parse_log

# What has no counterpart outside a GPU.
CPU_FLAGS = (
    *("--transformer-impl", "local"),
    *("--distributed-backend", "gloo"),
    *("--attention-backend", "unfused"),
    "--no-persist-layer-norm",
    "--no-gradient-accumulation-fusion",
    "--no-masked-softmax-fusion",
    "--no-bias-gelu-fusion",
    "--no-rope-fusion",
)

# A model that trains for tens of iterations a second on one core.
TINY_GPT_FLAGS = (
    *("--num-layers", "2"),
    *("--hidden-size", "64"),
    *("--num-attention-heads", "4"),
    *("--seq-length", "64"),
    *("--max-position-embeddings", "64"),
    *("--micro-batch-size", "4"),
    *("--global-batch-size", "8"),
    *("--train-iters", "10"),
    *("--lr", "1e-3"),
    *("--min-lr", "1e-4"),
    *("--lr-decay-style", "cosine"),
    *("--lr-warmup-fraction", "0.2"),
    *("--log-interval", "1"),
    *("--eval-interval", "5"),
    *("--eval-iters", "1"),
    *("--split", "90,5,5"),
    *("--make-vocab-size-divisible-by", "64"),
)

# How many ids NullTokenizer has beside those that --vocab-size counts, by Megatron-LM's version: its end-of-document
# id, the last of all, has been counted since 0.18.
_UNCOUNTED_IDS = {(0, 14): 1, (0, 15): 1, (0, 16): 1, (0, 17): 1}

# The first version that logs a process's first iteration twice: alone, and in a mean with the second.
_FIRST_LOSS_LOGGED_TWICE = (0, 16)

_POLL_SECONDS = 0.05
_TAIL_LINES = 40


class RunError(RuntimeError):
    """A run that ended other than was asked of it; its message ends with the end of the log."""


@dataclass(frozen=True)
class Run:
    """A run of `pretrain_gpt.py`. `dataclasses.replace` makes its variants.

    Args:
        checkout: The Megatron-LM to run.
        flags: Flags of this run, at least the data's; they win over the model's.
        tensor_parallel: Tensor-parallel size.
        pipeline_parallel: Pipeline-parallel size.
        data_parallel: Data-parallel size.
        context_parallel: Context-parallel size.
        expert_parallel: Expert-parallel size, within the data- and context-parallel ranks.
        plugin: Whether megatron-nca is registered.
        vocabulary: The number of ids; the last is the end-of-document id, so by default ids are bytes.
        model: Flags of the model and its training.
        python: The interpreter.
        environment: Variables on top of this process's.
        script: The training script, as a path inside the checkout.
        audited: Whether each rank checks its tensors at the switch; see `audit`.
        tokenizer: Flags of the tokenizer in place of `vocabulary`.
    """

    checkout: Checkout
    flags: tuple[str, ...]
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1
    plugin: bool = True
    vocabulary: int = 256
    model: tuple[str, ...] = TINY_GPT_FLAGS
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    script: str = "pretrain_gpt.py"
    audited: bool = False
    tokenizer: tuple[str, ...] | None = None

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel * self.context_parallel

    @property
    def command(self) -> tuple[str, ...]:
        """The command of every rank."""
        return (
            *(self.python, "-m", "megatron_nca.rehearsal"),
            *(() if self.plugin else ("--plain",)),
            *(("--audited",) if self.audited else ()),
            str(self.checkout.path / self.script),
            *self.model,
            *CPU_FLAGS,
            *self._tokenizer_flags(),
            *("--tensor-model-parallel-size", str(self.tensor_parallel)),
            *("--pipeline-model-parallel-size", str(self.pipeline_parallel)),
            *("--context-parallel-size", str(self.context_parallel)),
            *("--expert-model-parallel-size", str(self.expert_parallel)),
            *self.flags,
        )

    def start(self, folder: Path) -> "Ranks":
        """Start the run.

        Args:
            folder: Folder for each rank's output, as `rank0.log` and so on; made if missing.

        Returns:
            The running processes; a context that kills them at its end.
        """
        compile_helpers(self.checkout, self.python)
        folder.mkdir(parents=True, exist_ok=True)
        [port] = free_ports(1)
        processes = [self._start_rank(rank, port, folder) for rank in range(self.world_size)]
        return Ranks(folder, processes, second_is_mean=self.checkout.version[:2] >= _FIRST_LOSS_LOGGED_TWICE)

    def complete(self, folder: Path, timeout: float = 300) -> TrainingLog:
        """Run to the end.

        Args:
            folder: Folder for each rank's output.
            timeout: Seconds after which the run is killed.

        Returns:
            The log of the last rank.

        Raises:
            RunError: If a rank fails or time is up.
        """
        with self.start(folder) as ranks:
            ranks.wait_for(ranks.ended, timeout)
            return ranks.log()

    def fail(self, folder: Path, timeout: float = 300) -> str:
        """Run until a rank fails, as a run with wrong flags should.

        Args:
            folder: Folder for each rank's output.
            timeout: Seconds after which the run is killed.

        Returns:
            The output of the rank that failed.

        Raises:
            RunError: If the run succeeds or time is up.
        """
        with self.start(folder) as ranks:
            ranks.wait_for(lambda: ranks.failed() is not None or ranks.ended(), timeout, fail_early=False)
            failed = ranks.failed()
            if failed is None:
                raise ranks.error("should have failed and ran to its end")
            return ranks.output(failed)

    def kill_at(self, iteration: int, folder: Path, timeout: float = 300) -> TrainingLog:
        """Run until an iteration is logged, then send SIGKILL to every rank and whatever it has started.

        Args:
            iteration: The last iteration to be logged; what Megatron-LM does after logging it is not done.
            folder: Folder for each rank's output.
            timeout: Seconds to wait.

        Returns:
            The log of the last rank, up to the kill.

        Raises:
            RunError: If a rank fails, the run ends before the iteration, or time is up.
        """
        environment = {**self.environment, holding.VARIABLE: str(iteration)}
        with replace(self, environment=environment).start(folder) as ranks:
            ranks.wait_for(lambda: ranks.reached(iteration) or ranks.ended(), timeout)
            if ranks.ended():
                raise ranks.error(f"ended before iteration {iteration}")
            return ranks.log()

    def kill_after_saving(self, iteration: int, folder: Path, timeout: float = 300) -> TrainingLog:
        """Run until an iteration's checkpoint is complete, then send SIGKILL to every rank before the next step ends.

        Args:
            iteration: The iteration whose checkpoint is the last thing that happens.
            folder: Folder for each rank's output.
            timeout: Seconds to wait.

        Returns:
            The log of the last rank, up to the kill.

        Raises:
            RunError: If a rank fails, the run ends before the checkpoint, or time is up.
        """
        environment = {**self.environment, holding.SAVED_VARIABLE: str(iteration)}
        saved = holding.saved_line(iteration)
        with replace(self, environment=environment).start(folder) as ranks:
            ranks.wait_for(lambda: saved.search(ranks.output(0)) is not None or ranks.ended(), timeout)
            if ranks.ended():
                raise ranks.error(f"ended before the checkpoint of iteration {iteration}")
            return ranks.log()

    def _tokenizer_flags(self) -> tuple[str, ...]:
        if self.tokenizer is not None:
            return self.tokenizer
        counted = self.vocabulary - _UNCOUNTED_IDS.get(self.checkout.version[:2], 0)
        return ("--tokenizer-type", "NullTokenizer", "--vocab-size", str(counted))

    def _start_rank(self, rank: int, port: int, folder: Path) -> subprocess.Popen[bytes]:
        with (folder / f"rank{rank}.log").open("w") as output:
            # A session of its own makes a rank and what it starts one group to kill.
            return subprocess.Popen(
                self.command,
                cwd=folder,
                env=self._rank_environment(rank, port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _rank_environment(self, rank: int, port: int) -> dict[str, str]:
        project = str(Path(megatron_nca.__file__).parents[1])
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (project, os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "CUDA_DEVICE_MAX_CONNECTIONS": "1",
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.world_size),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            # Megatron-LM runs make for its dataset helpers, whose Makefile asks the Python first on the path for the name.
            "MAKEFLAGS": f"LIBEXT={extension_suffix(self.python)}",
            **self.environment,
        }


class Ranks:
    """The processes of a started run.

    Args:
        folder: The folder of their output.
        processes: One a rank, each the leader of a session.
        second_is_mean: How the log is to be read; see `parse_log`.
    """

    def __init__(self, folder: Path, processes: list[subprocess.Popen[bytes]], second_is_mean: bool) -> None:
        self._folder = folder
        self._second_is_mean = second_is_mean
        self._processes = processes

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def output(self, rank: int) -> str:
        """Return what a rank has printed."""
        return (self._folder / f"rank{rank}.log").read_text(errors="replace")

    def log(self) -> TrainingLog:
        """Return the log so far; Megatron-LM writes it on the last rank."""
        return parse_log(self.output(len(self._processes) - 1), self._second_is_mean)

    def reached(self, iteration: int) -> bool:
        """Return whether the log shows an iteration or a later one."""
        return any(record.iteration >= iteration for record in self.log().iterations)

    def ended(self) -> bool:
        """Return whether every rank has exited."""
        return all(process.poll() is not None for process in self._processes)

    def failed(self) -> int | None:
        """Return the first rank that has exited with an error, if any."""
        return next((rank for rank, process in enumerate(self._processes) if process.poll()), None)

    def wait_for(self, condition: Callable[[], bool], timeout: float, fail_early: bool = True) -> None:
        """Wait until a condition holds.

        Args:
            condition: The condition.
            timeout: Seconds to wait.
            fail_early: Whether a failed rank ends the wait with an error.

        Raises:
            RunError: If a rank fails or time is up.
        """
        deadline = time.monotonic() + timeout
        while True:
            if fail_early and self.failed() is not None:
                raise self.error(f"failed on rank {self.failed()}")
            if condition():
                return
            if time.monotonic() > deadline:
                raise self.error(f"did not get there in {timeout:g} s")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL to every rank and to whatever it has started, and wait for the ranks."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def error(self, what: str) -> RunError:
        """Return an error that shows the end of the log of the rank that failed, or of the last one."""
        failed = self.failed()
        rank = len(self._processes) - 1 if failed is None else failed
        tail = "\n".join(self.output(rank).splitlines()[-_TAIL_LINES:])
        return RunError(f"the run in {self._folder} {what}. Rank {rank} says:\n{tail}")
