"""The batch scripts on commands that write down what they are given; on a real cluster tests/slurm runs them."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "megatron_lm.sbatch": {"MEGATRON_LM": "/opt/Megatron-LM", "ARGUMENTS": "examples/slurm/llama3_8b_fp8.args"},
    "megatron_bridge.sbatch": {"TEXT": "/data/text_document"},
}
COMMANDS = {
    "srun": 'printf "%s\\n" "$@" >> "$CALLS"; echo >> "$CALLS"; echo "0123456789abcdef node0"',
    "squeue": "date -d '+4 hours' +%Y-%m-%dT%H:%M:%S",
    "scontrol": 'if [[ $2 == job ]]; then echo "   StdOut=$LOG"; else echo node0; fi',
}


@pytest.fixture
def submit(tmp_path):
    (tmp_path / "bin").mkdir()
    for name, body in COMMANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "log").touch()

    def run(script, **variables):
        environment = {
            **os.environ, **SCRIPTS[script], **variables, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"), "LOG": str(tmp_path / "log"), "RUN": str(tmp_path / "run"),
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node0", "SLURM_NNODES": "1",
        }  # fmt: skip
        words = ["bash", str(ROOT / "examples/slurm" / script)]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("complete\n")
        return (tmp_path / "calls").read_text()

    return run


def mounts(calls):
    found = [line.partition("=")[2].split(",") for line in calls.splitlines() if line.startswith("--container-mounts=")]
    assert len(found) == 2
    assert found[0] == found[1]
    return found[0]


def test_preflight_and_step_of_megatron_lm_see_data_tokenizer_and_checkout(submit, tmp_path):
    calls = submit("megatron_lm.sbatch", CONTAINER="a.sqsh", DATA="/data", TOKENIZER="/models/llama3", MOUNTS="/a:/b,/c:/d:ro")
    run = tmp_path / "run"
    same = [f"{run}:{run}", "/opt/Megatron-LM:/opt/Megatron-LM", "/data:/data:ro", "/models/llama3:/models/llama3:ro"]
    assert mounts(calls) == [*same, "/a:/b", "/c:/d:ro"]
    assert calls.count("--container-image=a.sqsh") == 2


def test_preflight_and_step_of_bridge_see_text_and_script(submit, tmp_path):
    run = tmp_path / "run"
    assert mounts(submit("megatron_bridge.sbatch", CONTAINER="a.sqsh")) == [f"{run}:{run}", f"{ROOT}:{ROOT}", "/data:/data:ro"]


def test_bridge_is_given_the_tokenizer_before_the_overrides_of_the_file(submit, tmp_path):
    (tmp_path / "overrides").write_text("nca.lr=1e-4\ntokenizer.tokenizer_model=/other\n")
    calls = submit("megatron_bridge.sbatch", TOKENIZER="/models/llama3", OVERRIDES=str(tmp_path / "overrides"))
    kind, folder = "tokenizer.tokenizer_type=HuggingFaceTokenizer", "tokenizer.tokenizer_model=/models/llama3"
    assert f"{kind}\n{folder}\nnca.lr=1e-4\ntokenizer.tokenizer_model=/other\n" in calls


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_a_container_nothing_is_mounted(submit, script):
    calls = submit(script)
    assert "--container" not in calls
    assert "tokenizer." not in calls
