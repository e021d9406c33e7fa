import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from megatron_nca.cli.commands import bench as module

ROOT = Path(__file__).resolve().parents[2]
FAST = ("--seconds", 0.3, "--processes", 1)


def test_the_compiled_engine_is_measured_beside_the_reference(succeed):
    result = succeed("bench", "nca:gzip=none", *FAST)["entries"][0]
    assert result["tokens_a_second_a_core"] > 3 * result["tokens_a_second_of_the_reference"] > 0
    assert result["tokens_a_second_together"] > 0
    assert result["gpus_fed_a_core"]["1.6B"] == pytest.approx(result["tokens_a_second_a_core"] * 9.6e9 / 4e14)


def test_every_entry_has_a_row(command):
    code, out, _ = command("bench", "nca:", "nca:colors=4,gzip=none", *FAST)
    assert code == 0
    rows = out.splitlines()
    assert [row.split()[:2] for row in rows[2:4]] == [["nca:", "0.5-1.0"], ["nca:colors=4,gzip=none", "none"]]


def test_a_narrower_band_costs_more(succeed):
    result = succeed("bench", "nca:gzip=none", "nca:domain=code", *FAST)["entries"]
    assert result[0]["tokens_a_second_a_core"] > 2 * result[1]["tokens_a_second_a_core"]


def test_the_repositorys_tables_are_run_one_after_the_other(command, monkeypatch):
    ran = []
    monkeypatch.setattr(
        subprocess, "run", lambda words, cwd, check: ran.append((cwd, words[1:])) or type("Ended", (), {"returncode": 0})
    )
    assert command("bench", "--all", "--quick")[0] == 0
    assert ran == [(ROOT, ["-m", name, "--quick"]) for name in module.TABLES]


def test_without_a_checkout_its_tables_are_refused(fail, monkeypatch):
    # Another package of that name may lie on the path; it is not run.
    monkeypatch.setattr(module, "megatron_nca", SimpleNamespace(__file__="/nowhere/megatron_nca/__init__.py"))
    assert "run it in a checkout" in fail("bench", "--all")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nca:colours=3"], "is no key of an entry"),
        (["nca:gzip=0.98-0.99"], "0 of 1,600 random rules"),
        (["--seconds", "0"], "must lie above 0"),
        (["--processes", "0"], "must be at least 1"),
    ],
)
def test_bad_input_is_one_clear_error(fail, arguments, problem):
    assert problem in fail("bench", *arguments)
