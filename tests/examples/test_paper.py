"""The paper's run: what its script launches has the paper's phases, batches and rates, in both arms."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from megatron_nca.cli.main import main

SCRIPT = Path(__file__).parents[2] / "examples/paper/megatron_lm.sh"


@pytest.fixture
def launch(tmp_path):
    def words(**environment):
        shown = tmp_path / "torchrun"
        shown.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$WORDS"\n')
        shown.chmod(0o755)
        known = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WORDS": str(tmp_path / "words")}
        known |= {"DATA": "/data/owt", "SAVE": "/saved"}
        subprocess.run([SCRIPT], env={**known, **environment}, check=True, timeout=60)
        return (tmp_path / "words").read_text().splitlines()

    return words


def test_nca_has_five_thousand_steps_of_its_own_batch_and_rate_and_the_text_as_many_as_alone(launch, capsys):
    tokenizer = ("--tokenizer-type", "NullTokenizer", "--vocab-size", "50257")
    assert main(["plan", "--strict", "--json", "--", *launch(), *tokenizer]) == 0
    result = json.loads(capsys.readouterr().out)
    nca, text = result["phases"]
    assert (nca["tokens"], nca["last_iteration"]) == (164_003_840, 5005)
    assert text["last_iteration"] - nca["last_iteration"] == 17_166
    assert text["tokens"] == 17_166 * 512 * 1024
    first = [rate for place, rate in zip(result["positions"], result["learning_rate"], strict=True) if place < nca["end"]]
    assert max(first) == pytest.approx(1e-4, rel=1e-3)
    assert result["warnings"] == []


def test_the_other_arm_is_the_same_text_alone(launch, capsys):
    words = launch(NCA="")
    assert words[words.index("--data-path") + 1] == "/data/owt"
    assert words[words.index("--train-iters") + 1] == "17166"
    assert not [word for word in words if word.startswith("--nca")]
    assert main(["plan", "--", *words]) == 1, "no nca: entry"
    assert "no nca: entry" in capsys.readouterr().out
