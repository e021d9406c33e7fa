"""The example of three phases: what its script launches is what the plan says."""

import os
import subprocess
from pathlib import Path

import pytest

from megatron_nca.cli.main import main
from tests.conftest import write_text

SCRIPT = Path(__file__).parents[2] / "examples/phases/train.sh"


@pytest.fixture
def launch(tmp_path):
    """The words that the script gives to torchrun."""
    for name in ("web", "code", "math"):
        write_text(tmp_path / f"{name}_text_document", 400)
    shown = tmp_path / "torchrun"
    shown.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$WORDS"\n')
    shown.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "DATA": str(tmp_path), "SAVE": str(tmp_path / "saved"),
        "WORDS": str(tmp_path / "words"),
    }  # fmt: skip
    subprocess.run([SCRIPT, "--exit-interval", "10"], env=environment, check=True, timeout=60)
    return (tmp_path / "words").read_text().splitlines()


def test_the_script_launches_three_phases_that_end_as_planned(launch, capsys):
    words = [word for word in launch if not word.startswith("--tokenizer")]
    assert main(["plan", "--vocab-size", "50304", "--", "torchrun", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("nca:tokens=164M,batch=32") and "164,003,840" in line for line in lines)
    assert any(line.startswith("phase:tokens=90B,ramp=10B 0.7 ") and "then falls" not in line for line in lines)
    assert sum("_text_document" in line and "%" in line for line in lines) >= 4
    assert launch[-2:] == ["--exit-interval", "10"]
