import importlib
import importlib.util
import subprocess
import sys

import pytest

from megatron_nca.cli.main import COMMANDS
from tests.project import project

PRESENT = [name for name in COMMANDS if importlib.util.find_spec(f"megatron_nca.cli.commands.{name}")]


@pytest.mark.parametrize("name", PRESENT)
def test_every_command_shows_an_example_in_its_help(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"megatron-nca {name}" in out.split("examples:")[1]
    assert "--json" in out


@pytest.mark.parametrize("name", PRESENT)
def test_a_flag_that_does_not_exist_is_bad_usage(command, name):
    code, _, err = command(name, "--no-such-flag")
    assert code == 2
    assert err.startswith("megatron-nca: error: ")
    assert err.endswith(" --help\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("plann", "plan"),
        ("plan --nca-lrr 3", "--nca-lr"),
        ("bench --secnds 3", "--seconds"),
        ("preview nca:domain=mth", "math"),
    ],
)
def test_a_misspelt_word_is_told_with_what_may_be_meant(fail, words, meant):
    message = fail(*words.split())
    assert f"did you mean {meant}?" in message
    assert message.count("\n") == 1


RUN = ["--seq-length", "1024", "--global-batch-size", "8", "--train-iters", "100"]
BAD_INPUT = {
    "preview": (["nca:colours=3"], 2),
    "inspect": (["nca:grid=7"], 2),
    "plan": (["--data-path", "nca:tokns=1M", "/a", *RUN], 1),
    "rehearse": (["--", "{folder}/none.args"], 2),
    "calibrate": (["{folder}/no_text"], 2),
    "build": (["nca:", "--tokens", "1M", "--output", "{folder}/none/nca"], 2),
    "transfer": (["--load", "{folder}/none", "--save", "{folder}/new"], 2),
    "compare": (["{folder}/none.csv", "{folder}"], 2),
    "bench": (["nca:gzip=1-0"], 2),
    "doctor": (["--expect", "0" * 64], 1),
}


def test_every_command_is_tried_on_bad_input():
    assert set(BAD_INPUT) == set(COMMANDS)


@pytest.mark.parametrize("name", PRESENT)
def test_bad_input_is_one_clear_error_and_an_exit_code(in_process, tmp_path, name):
    words, code = BAD_INPUT[name]
    finished = in_process(name, *(word.format(folder=tmp_path) for word in words))
    assert finished.returncode == code, finished.stderr
    assert "Traceback" not in finished.stderr
    # What a doctor finds is its output; what others refuse is an error.
    result = finished.stderr.splitlines()
    if name == "doctor":
        result = [line for line in finished.stdout.splitlines() if "expected 0000" in line]
    assert len(result) == 1, result
    assert name == "doctor" or result[0].startswith("megatron-nca: ")


def test_help_lists_the_commands(command):
    code, out, _ = command("--help")
    assert code == 0
    assert all(name in out for name in PRESENT)


def test_without_a_command_the_usage_is_shown(command):
    code, _, err = command()
    assert code == 2
    assert "COMMAND" in err


def test_the_module_is_the_same_program(in_process):
    finished = in_process("inspect", "nca:colours=3")
    assert finished.returncode == 2
    assert finished.stderr.startswith("megatron-nca: error: data path entry 'nca:colours=3'")
    assert len(finished.stderr.splitlines()) == 1


def test_the_script_is_declared_and_exists():
    from megatron_nca.cli import main as module

    assert project()["scripts"] == {"megatron-nca": "megatron_nca.cli.main:main"}
    assert callable(module.main)


def test_a_missing_package_is_told_with_the_extra_that_brings_it(monkeypatch):
    from megatron_nca.cli.common import UsageError, need

    with pytest.raises(UsageError, match=r"install it with: pip install 'megatron-nca\[cli\]'"):
        need("no_such_package.part")


WITHOUT_TORCH = """
import sys
sys.modules.update({"torch": None, "megatron": None})
from megatron_nca.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["preview", "nca:", "--text", "--rules", "1"], 0, "gzip 0."),
        (["doctor"], 0, "Megatron-Core"),
        (["bench", "nca:", "--processes", "1", "--seconds", "0.1"], 0, "tokens/s a core"),
        (["inspect", "nca:"], 2, "pip install 'megatron-nca[megatron]'"),
        (
            [*["plan", "--data-path", "nca:", "--seq-length", "1024", "--global-batch-size", "8", "--train-iters", "9"]],
            0,
            "9 iterations",
        ),
        (["build", "nca:", "--tokens", "1M", "--output", "/tmp/nca"], 2, "pip install 'megatron-nca[megatron]'"),
        (["transfer", "--load", "nca", "--save", "start"], 2, "pip install 'megatron-nca[megatron]'"),
    ],
)
def test_torch_is_needed_only_where_it_is_used(arguments, code, said):
    finished = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == code, finished.stderr
    assert said in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
