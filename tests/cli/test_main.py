import importlib
import importlib.util

import pytest

from megatron_nca.cli.main import COMMANDS

PRESENT = [name for name in COMMANDS if importlib.util.find_spec(f"megatron_nca.cli.{name}")]


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
    assert "usage: megatron-nca" in err


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

    declared = (importlib.import_module("pathlib").Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    assert "megatron-nca=megatron_nca.cli.main:main" in declared
    assert callable(module.main)


def test_a_missing_package_is_told_with_the_extra_that_brings_it(monkeypatch):
    from megatron_nca.cli.common import UsageError, need

    with pytest.raises(UsageError, match=r"install it with: pip install 'megatron-nca\[cli\]'"):
        need("no_such_package.part")
