"""The processes of a run, with scripts that stand for Megatron-LM."""

import signal
import subprocess
import sys
import time

import pytest

from megatron_nca.rehearsal.ranks import Ranks, RunError

LINE = "print(' iteration {0}/ 9 | consumed samples: {0} | lm loss: 1.0 |', flush=True)"
HANG = "import time; time.sleep(600)"


@pytest.fixture
def start(tmp_path):
    started = []

    def start_scripts(*scripts):
        processes = []
        for rank, script in enumerate(scripts):
            with (tmp_path / f"rank{rank}.log").open("w") as output:
                command = [sys.executable, "-c", script]
                processes.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True))
        started.append(Ranks(tmp_path, processes, second_is_mean=False))
        return started[-1]

    yield start_scripts
    for ranks in started:
        ranks.kill()


def test_the_last_rank_s_log_is_read(start):
    ranks = start("print('first')", LINE.format(3))
    ranks.wait_for(ranks.ended, timeout=30)
    assert ranks.log().losses == {3: 1.0}
    assert not ranks.reached(4)


def test_an_iteration_is_waited_for(start):
    ranks = start(f"{LINE.format(2)}; {HANG}")
    ranks.wait_for(lambda: ranks.reached(2), timeout=30)
    assert not ranks.ended()


def test_a_failed_rank_ends_the_wait_and_shows_its_log(start):
    ranks = start(HANG, "raise SystemExit('this is why')")
    with pytest.raises(RunError, match=r"failed on rank 1.*\n.*this is why"):
        ranks.wait_for(ranks.ended, timeout=30)


def test_a_wait_has_an_end(start):
    with pytest.raises(RunError, match=r"did not get there in 0\.1 s"):
        start(HANG).wait_for(lambda: False, timeout=0.1)


def test_a_kill_reaches_what_a_rank_has_started(start):
    ranks = start(f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{HANG}']).pid, flush=True); {HANG}")
    ranks.wait_for(lambda: ranks.output(0).endswith("\n"), timeout=30)
    child = int(ranks.output(0))
    with ranks:
        pass
    assert ranks._processes[0].returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
