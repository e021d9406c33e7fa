"""The processes of a run on the stand-in: started, killed at an iteration, read back, whichever framework they run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import megatron_nca
from megatron_nca.rehearsal import holding
from megatron_nca.rehearsal.ports import free_ports
from megatron_nca.rehearsal.training_log import TrainingLog, parse_log

_POLL_SECONDS = 0.05
_TAIL_LINES = 40


class RunError(RuntimeError):
    """A run that ended other than was asked of it; its message ends with the end of the log."""


class RankedRun(ABC):
    """A run of one process a rank; what it runs is the subclass's.

    Attributes:
        environment: Variables on top of this process's.
    """

    environment: Mapping[str, str]

    @property
    @abstractmethod
    def second_is_mean(self) -> bool:
        """Whether the log's second line holds a mean; see `parse_log`."""

    @property
    @abstractmethod
    def world_size(self) -> int:
        """The number of ranks."""

    @property
    @abstractmethod
    def command(self) -> tuple[str, ...]:
        """The command of every rank."""

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Make what the ranks need before they start, in their folder or beside the script."""

    @abstractmethod
    def with_environment(self, environment: Mapping[str, str]) -> RankedRun:
        """Return the same run with other variables."""

    def start(self, folder: Path) -> Ranks:
        """Start the run.

        Args:
            folder: Folder for each rank's output, as `rank0.log` and so on; made if missing.

        Returns:
            The running processes; a context that kills them at its end.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.prepare(folder)
        [port] = free_ports(1)
        processes = [self._start_rank(rank, port, folder) for rank in range(self.world_size)]
        return Ranks(folder, processes, second_is_mean=self.second_is_mean)

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
            iteration: The last iteration to be logged; what the framework does after logging it is not done.
            folder: Folder for each rank's output.
            timeout: Seconds to wait.

        Returns:
            The log of the last rank, up to the kill.

        Raises:
            RunError: If a rank fails, the run ends before the iteration, or time is up.
        """
        environment = {**self.environment, holding.VARIABLE: str(iteration)}
        with self.with_environment(environment).start(folder) as ranks:
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
        with self.with_environment(environment).start(folder) as ranks:
            ranks.wait_for(lambda: saved.search(ranks.output(0)) is not None or ranks.ended(), timeout)
            if ranks.ended():
                raise ranks.error(f"ended before the checkpoint of iteration {iteration}")
            return ranks.log()

    def _start_rank(self, rank: int, port: int, folder: Path) -> subprocess.Popen[bytes]:
        with (folder / f"rank{rank}.log").open("w") as output:
            # A session of its own makes a rank and what it starts one group to kill.
            return subprocess.Popen(
                self.command,
                cwd=folder,
                env=self.rank_environment(rank, port, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def rank_environment(self, rank: int, port: int, folder: Path) -> dict[str, str]:
        """Return a rank's variables."""
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

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def output(self, rank: int) -> str:
        """Return what a rank has printed."""
        return (self._folder / f"rank{rank}.log").read_text(errors="replace")

    def log(self) -> TrainingLog:
        """Return the log so far; the last rank writes it."""
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
