"""A SLURM cluster of two nodes on this machine: Debian's slurmctld, slurmd and munged on loopback, in a folder of its own."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from megatron_nca.rehearsal.ports import free_ports
from megatron_nca.workers import PR_SET_PDEATHSIG

NODES = ("n1", "n2")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "squeue", "scancel")

CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost=localhost
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmctldParameters=enable_configless
ReturnToService=2
KillWait=5
MinJobAge=300
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=1000
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no cluster can be made here, or None."""
    missing = [program for program in PROGRAMS if _program(program) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "needs root, as which slurmd runs"


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


class Cluster:
    """A running cluster; a context that ends it.

    Args:
        folder (Path): For configuration, state and logs
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        # munged refuses a socket in a folder that not everybody may enter.
        self.folder.chmod(0o755)
        controller, first, second = free_ports(3)
        settings = CONFIGURATION.format(folder=self.folder, controller=controller, first=first, second=second)
        (self.folder / "slurm.conf").write_text(settings)
        (self.folder / "state").mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        kinds = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{kind}={self.folder}/munge.{end}" for kind, end in kinds.items()]
        self._start("munged", "--foreground", "--force", *munge)
        _wait(lambda: (self.folder / "munge.socket").exists(), 30, "munged made no socket")
        self._start("slurmctld", "-D", "-i")
        for node in NODES:
            (self.folder / f"spool.{node}").mkdir()
            self._start("slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))
        _wait(self._idle, 60, "the nodes do not become idle", self.folder)
        return self

    def __exit__(self, *exception: object) -> None:
        # A step that does not heed SIGTERM would outlive the daemons, and hold its port.
        with contextlib.suppress(subprocess.CalledProcessError, TimeoutError):
            self("scancel", "--user=root")
            _wait(lambda: not self("squeue", "-h"), 30, "the jobs do not end")
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's programs need to find this cluster."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def __call__(self, *command: str, environment: dict[str, str] | None = None) -> str:
        """Run a program of SLURM and return its output."""
        result = subprocess.run(
            command, env=self.environment | (environment or {}), capture_output=True, text=True, timeout=60, check=False
        )
        if result.returncode:
            raise subprocess.CalledProcessError(result.returncode, command, result.stdout, result.stderr)
        return result.stdout

    def state(self, job: str) -> str:
        """A job's state, such as RUNNING or COMPLETED."""
        return dict(field.split("=", 1) for field in self("scontrol", "show", "job", "-o", job).split() if "=" in field)[
            "JobState"
        ]

    def wait_for_end(self, job: str, timeout: float) -> str:
        """Wait until a job is neither pending nor running, and return its state."""
        waiting = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD")
        _wait(lambda: self.state(job) not in waiting, timeout, f"job {job} does not end", self.folder)
        return self.state(job)

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.{len(self._daemons)}.out").open("w") as output:
            path = _program(program)
            assert path is not None
            self._daemons.append(
                # SLURM tells processes of a job by their process group; none of it may be that of the tests.
                subprocess.Popen(
                    [path, *arguments],
                    env=self.environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_end_with_the_tests,
                )
            )

    def _idle(self) -> bool:
        try:
            return self("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"]
        except subprocess.CalledProcessError:
            # The controller is not listening yet.
            return False


def _end_with_the_tests() -> None:
    """Have the kernel end a daemon where the tests are killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(condition, timeout: float, problem: str, logs: Path | None = None) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            tails = [
                f"{log}:\n" + "\n".join(log.read_text().splitlines()[-15:]) for log in (logs.glob("*.log") if logs else [])
            ]
            raise TimeoutError(f"{problem} in {timeout:g} s\n" + "\n".join(tails))
        time.sleep(0.3)
