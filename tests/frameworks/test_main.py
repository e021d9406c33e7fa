"""``python -m megatron_nca SCRIPT`` where the script starts itself anew."""

import os
import subprocess
import sys

SCRIPT = """
import os
import sys

import megatron_nca

if "again" not in sys.argv:
    os.environ["LEFT"] = "1"
    os.{call}(sys.executable, [sys.executable, __file__, *sys.argv[1:], "again"]{environment})
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
print(sys.argv[1:], os.environ["LEFT"], hasattr(BlendedMegatronDatasetBuilder.build, "__wrapped__"))
"""


def start(tmp_path, call, environment=""):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(call=call, environment=environment))
    command = [sys.executable, "-W", "ignore", "-m", "megatron_nca", "script.py", "--flag"]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))},
    )  # fmt: skip


def test_a_script_that_starts_itself_anew_keeps_the_plugin(tmp_path):
    for call, environment in (("execv", ""), ("execvpe", ", os.environ")):
        result = start(tmp_path, call, environment)
        assert result.stdout.splitlines()[-1:] == ["['--flag', 'again'] 1 True"], result.stderr


def test_another_program_is_started_as_it_was_asked_for(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'print(1)'])\n")
    result = subprocess.run(
        [sys.executable, "-m", "megatron_nca", "script.py"], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))},
    )  # fmt: skip
    assert result.stdout == "1\n", result.stderr
