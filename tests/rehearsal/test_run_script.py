import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import beside
from megatron_nca.rehearsal import installed
import torch
print(__name__, sys.argv[1:], beside.VALUE, installed(), torch.zeros(1, device="cuda").device)
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 'beside the script'")
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def command_of(*arguments):
    command = [sys.executable, "-W", "ignore", "-m", "megatron_nca.rehearsal", *map(str, arguments)]
    return command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(*arguments, cwd):
    command, environment = command_of(*arguments)
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.parametrize("options", [(), ("--plain",)])
def test_a_script_runs_as_main_with_its_folder_on_the_path(script, options, tmp_path_factory):
    result = run(*options, script, "--flag", "1", cwd=tmp_path_factory.mktemp("elsewhere"))
    assert result.stdout == "__main__ ['--flag', '1'] beside the script True cpu\n", result.stderr


def test_a_held_run_stops_once_it_has_logged_the_iteration(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("for i in range(1, 9):\n    print(f' iteration {i:8d}/ 8 | lm loss: 1.0 |')")
    command, environment = command_of("--plain", script)
    held = subprocess.Popen(command, env={**environment, "MEGATRON_NCA_HOLD_AT": "3"}, stdout=subprocess.PIPE, text=True)
    logged = [held.stdout.readline() for _ in range(3)]
    held.kill()
    assert "3/" in logged[-1]
    assert held.stdout.read() == ""
    held.wait()


def test_a_run_held_for_some_seconds_goes_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\nfor i in range(1, 5):\n    print(f' iteration {i:8d}/ 8 | lm loss: 1.0 |', time.time(), flush=True)"
    )
    command, environment = command_of("--plain", script)
    holds = {"MEGATRON_NCA_HOLD_AT": "3", "MEGATRON_NCA_HOLD_SECONDS": "1"}
    printed = subprocess.run(command, env=environment | holds, stdout=subprocess.PIPE, text=True, check=True).stdout
    times = [float(line.split()[-1]) for line in printed.splitlines()]
    assert len(times) == 4
    assert times[3] - times[2] >= 1


def test_without_a_script_the_usage_is_shown(tmp_path):
    result = run("--plain", cwd=tmp_path)
    assert result.returncode == 1
    assert "usage: python -m megatron_nca.rehearsal" in result.stderr
