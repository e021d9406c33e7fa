import os
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import multiprocessing, os, time
from megatron_nca.rehearsal.ending import end_with_parent

end_with_parent()

def wait():
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=wait).start()
    time.sleep(60)
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux's /proc")
def test_what_a_killed_process_has_spawned_ends_with_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "MEGATRON_NCA_END_WITH_PARENT": "1", "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    spawned = int(process.stdout.readline())
    assert is_running(spawned)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and is_running(spawned):
        time.sleep(0.05)
    assert not is_running(spawned)
