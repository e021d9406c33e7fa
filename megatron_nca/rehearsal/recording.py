"""A launch out of a shell script: bash runs the script up to the launch, which is written down instead of started.

`torchrun`, `python` and SLURM's programs are stand-ins in a folder that is first on the path. The script works in a scratch
folder with links to what lies in the working directory and in the checkout; it is killed at its launch, so that nothing after
it is done. What it does before, it does.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from megatron_nca.rehearsal.launching import Launch, LaunchError, read_words

SUFFIXES = (".sh", ".sbatch", ".slurm")
SECONDS = 120
KEPT = re.compile(r"(NVTE_\w+|CUDA_DEVICE_MAX_CONNECTIONS|NCCL_ALGO|WORLD_SIZE)=")
"""Variables of the launch on which training depends."""

# Names of Megatron-LM's and torch's, written out: a stand-in starts at every call of python.
_STAND_IN = r"""#!/bin/bash
record() {
    { printf '%s\0' "$@"; } > "$REHEARSE/words"
    env -0 > "$REHEARSE/environment"
    kill -KILL -- "-$REHEARSE_GROUP"
    sleep 60
}
name=${0##*/}
case $name in
torchrun) record torchrun "$@" ;;
srun)
    while [[ ${1:-} == -* ]]; do
        word=$1
        shift
        # An option's value may stand apart, and is no program.
        if [[ $word != *=* && ${1:-} != -* ]] && ! type -P -- "$1" > /dev/null; then shift; fi
    done
    exec "$@" ;;
scontrol)
    case "$1 $2" in
    "show hostnames") echo localhost ;;
    "show job") touch "$REHEARSE/job.log"; echo "   StdOut=$REHEARSE/job.log" ;;
    esac ;;
squeue) date -d '+4 hours' +%Y-%m-%dT%H:%M:%S ;;
*)
    case " $* " in
    # A preflight's, which the rehearsal is.
    *" -m megatron_nca.cli "*) echo rehearsal; exit ;;
    *" -m torch.distributed.run "* | *" -m torch.distributed.launch "* | *" -m torchrun "*) record python "$@" ;;
    *pretrain_*.py\ *) record python "$@" ;;
    esac
    exec "$REHEARSE_PYTHON" "$@" ;;
esac
"""
_PROGRAMS = ("torchrun", "srun", "scontrol", "squeue", "python", "python3")


def is_script(word: str) -> bool:
    """Return whether a word names a script of a shell."""
    return word.endswith(SUFFIXES)


def record(words: Sequence[str], environment: Mapping[str, str], checkout: Path | None, nodes: int | None = None) -> Launch:
    """Run a script up to its launch.

    Args:
        words: The script and its arguments.
        environment: Variables on top of this process's.
        checkout: A checkout of Megatron-LM, whose files the script may look for in its working directory.
        nodes: Nodes of the job, or None for what the script's own `#SBATCH --nodes` says.

    Returns:
        The launch that it came to.

    Raises:
        LaunchError: It ended before, or did not end; the message has its last line.
    """
    script = Path(words[0])
    if not script.is_file():
        raise LaunchError(f"{script}: there is no such script")
    with tempfile.TemporaryDirectory(prefix="nca-rehearse-") as name:
        folder = Path(name)
        printed = _run([str(script.resolve()), *words[1:]], folder, _environment(folder, script, environment, nodes), checkout)
        recorded = folder / "words"
        if not recorded.exists():
            last = printed.strip().splitlines()[-1:] or ["nothing was printed"]
            raise LaunchError(f"{script}: ended before it started a training: {last[0]}")
        found = recorded.read_text().split("\0")[:-1]
        kept = [one.partition("=") for one in (folder / "environment").read_text().split("\0") if KEPT.match(one)]
        return read_words(found, {key: value for key, _, value in kept})


def _environment(folder: Path, script: Path, given: Mapping[str, str], nodes: int | None) -> dict[str, str]:
    programs = folder / "programs"
    programs.mkdir()
    for program in _PROGRAMS:
        (programs / program).write_text(_STAND_IN)
        (programs / program).chmod(0o755)
    asked = re.search(r"^#SBATCH\s+(?:--nodes[= ]|-N ?)(\d+)", script.read_text(errors="replace"), re.MULTILINE)
    count = nodes or (int(asked[1]) if asked else 1)
    return {
        **os.environ,
        **{"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NNODES": str(count), "SLURM_NODEID": "0"},
        **{"SLURM_JOB_NUM_NODES": str(count), "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURMD_NODENAME": "localhost"},
        **given,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHON": "python",
        "REHEARSE": str(folder),
        "REHEARSE_PYTHON": sys.executable,
    }


def _run(command: list[str], folder: Path, environment: dict[str, str], checkout: Path | None) -> str:
    """Run a script in a session of its own; returns what it printed."""
    here = folder / "here"
    here.mkdir()
    for place in filter(None, (Path.cwd(), checkout)):
        for entry in place.iterdir():
            with contextlib.suppress(FileExistsError):
                (here / entry.name).symlink_to(entry.absolute())
    bash = shutil.which("bash")
    if bash is None:
        raise LaunchError(f"{command[0]}: needs bash, which is not on the path")
    with (folder / "printed").open("w") as output:
        # The stand-in kills the script's whole group, whose number is that of its first process.
        process = subprocess.Popen(
            [bash, "-c", 'export REHEARSE_GROUP=$$; exec "$BASH" "$@"', "bash", *command],
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise LaunchError(f"{command[0]}: came to no launch in {SECONDS} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return (folder / "printed").read_text(errors="replace")
