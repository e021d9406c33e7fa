"""A launch has secrets in its environment: none is printed, recorded or left in a file."""

import json
import os
from types import SimpleNamespace

import pytest
import torch

from megatron_nca.rehearsal.launching import LaunchError, read_words
from megatron_nca.rehearsal.recording import record as record_script
from tests.conftest import write_text

SECRET = "s3cr3t-5f2b"
NAMES = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "NGC_API_KEY", "PGPASSWORD")
SECRETS = {name: f"{SECRET}-{name}" for name in NAMES}
LAUNCH = ("--seq-length", 1024, "--global-batch-size", 8, "--train-samples", 10_000)
COMMANDS = {
    "plan": ("plan", "--data-path", "nca:tokens=1M", "TEXT", *LAUNCH),
    "plan, in JSON": ("plan", "--json", "--data-path", "nca:tokens=1M", "TEXT", *LAUNCH),
    "plan of a wrong entry": ("plan", "--data-path", "nca:token=1M", "TEXT", *LAUNCH),
    "plan of a text that is missing": ("plan", "--data-path", "nca:tokens=1M", "/nowhere", *LAUNCH),
    "plan of a damaged checkpoint": ("plan", "--checkpoint", "FOLDER"),
    "doctor": ("doctor",),
    "doctor, in JSON": ("doctor", "--json"),
    "inspect": ("inspect", "nca:"),
    "a misspelt command": ("plna",),
    "rehearse without a launch": ("rehearse", "--", "torchrun", "train.py"),
}


@pytest.fixture
def place(tmp_path):
    text = write_text(tmp_path / "text", 50)
    torch.save({"args": SimpleNamespace(nca_curriculum={"version": 99})}, tmp_path / "common.pt")
    return {"TEXT": text, "FOLDER": str(tmp_path)}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_or_writes_a_secret_of_its_environment(in_process, place, tmp_path, command):
    words = [place.get(word, word) for word in COMMANDS[command]]
    done = in_process(*words, cwd=tmp_path, env={**os.environ, **SECRETS})
    assert done.stdout or done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_recorded_launch_keeps_what_training_depends_on_and_no_more(tmp_path):
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/bash\nexport NVTE_FUSED_ATTN=0\ntorchrun --nproc-per-node 4 pretrain_gpt.py --bf16\n")
    script.chmod(0o755)
    launch = record_script([str(script)], SECRETS, None)
    assert launch.environment["NVTE_FUSED_ATTN"] == "0"
    assert SECRET not in json.dumps([*launch.flags, dict(launch.environment)])
    assert [path.name for path in tmp_path.iterdir()] == ["train.sh"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_typed_before_a_launch_is_not_repeated(name):
    with pytest.raises(LaunchError, match="names no script") as refused:
        read_words(["env", f"{name}={SECRET}", "NCCL_ALGO=Ring", "torchrun", "--nnodes", "2"])
    assert SECRET not in str(refused.value)
    assert f"{name}=..." in str(refused.value)


def test_a_record_holds_nothing_of_the_environment(monkeypatch):
    from megatron_nca.data.batches import BatchBoundaries
    from megatron_nca.data.curriculum import plan_training, read_blend
    from megatron_nca.data.run import Datasets
    from megatron_nca.training.record import Record

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    plan = plan_training(read_blend((["nca:tokens=2560", "/a"], None)), 128, 100, BatchBoundaries(8))
    state = Record.of(plan, Datasets(None, 1234, "tokens", ("",)), 40, True).state_dict()
    assert SECRET not in json.dumps(state) + plan.describe()
