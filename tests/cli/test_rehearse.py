"""`megatron-nca rehearse`: a launch that is none is one line; a real one is rehearsed on Megatron-LM itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_nca.cli.commands.rehearse import plan_problems, resume_advices
from megatron_nca.rehearsal.checkouts import Checkout, compile_helpers
from tests.rehearsal.conftest import corpus, pytest_generate_tests  # noqa: F401

PROJECT = Path(__file__).parents[2]
ENTRY = "nca:tokens=164M,grid=4,colors=3,gzip=none,trajectory=64"
LAUNCH = (
    *("--seq-length", "1024", "--max-position-embeddings", "1024", "--num-layers", "24", "--hidden-size", "2048"),
    *("--num-attention-heads", "16", "--micro-batch-size", "4", "--global-batch-size", "512", "--train-samples", "9765625"),
    *("--lr", "5e-4", "--min-lr", "5e-5", "--lr-decay-style", "cosine", "--lr-warmup-fraction", "0.01", "--nca-lr", "1e-4"),
    *("--split", "90,5,5", "--tokenizer-type", "NullTokenizer", "--vocab-size", "255", "--ckpt-format", "torch_dist"),
    *("--hidden-dropout", "0", "--attention-dropout", "0", "--eval-iters", "10", "--tensorboard-dir", "board"),
)


def rehearse(*words):
    """Run the command in a process of its own, where PyTorch may be made to present the CPU as a GPU."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYENV_VERSION": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "megatron_nca.cli", "rehearse", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a launch after --"),
        (["--", "A=1"], "after the variables stands no launch"),
        (["--", "torchrun", "--nproc-per-node", "8"], "names no script"),
        (["--", "torchrun", "scripts/run_recipe.py"], "scripts/run_recipe.py: cannot be read"),
        (["--", "python", "examples/nemo/tiny_pretrain.py"], "launches of NeMo cannot be rehearsed"),
        (["--", "absent.args"], "absent.args: cannot be read"),
        (["--", "absent.sbatch"], "absent.sbatch: there is no such script"),
        (["--", "torchrun", "-m", "megatron_nca", "/absent/pretrain_gpt.py"], "give one by --megatron DIR"),
    ],
)
def test_what_is_no_launch_is_refused_in_one_line(words, message):
    done = rehearse(*words)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert message in line


def test_a_launch_without_the_plugin_is_told_what_to_write(tmp_path):
    (tmp_path / "megatron/training").mkdir(parents=True)
    (tmp_path / "megatron/training/__init__.py").touch()
    done = rehearse("--", "torchrun", tmp_path / "pretrain_gpt.py", "--data-path", ENTRY)
    assert done.returncode == 2
    assert "write -m megatron_nca before it" in done.stderr


def test_a_checkout_that_registers_the_plugin_itself_is_known(tmp_path):
    (tmp_path / "megatron/training").mkdir(parents=True)
    (tmp_path / "megatron/training/__init__.py").write_text("import megatron_nca\n\nmegatron_nca.register()\n")
    assert Checkout(tmp_path).is_patched


RUN = ("--seq-length", "1024", "--global-batch-size", "512", "--train-samples", "9765625", "--micro-batch-size", "4")


@pytest.mark.parametrize(
    ("words", "vocabulary", "problem"),
    [
        (("--train-samples", "100"), None, "the run ends after 100 samples, before the switch"),
        ((), 800, "its 10,002 tokens do not fit the tokenizer, which has 799 ids"),
        (("--nca-lrr", "1"), None, "--nca-lrr: there is no such flag"),
    ],
)
def test_what_plan_has_against_a_launch_stops_its_rehearsal(words, vocabulary, problem):
    found, _ = plan_problems(("--data-path", "nca:tokens=164M", "/data/text", *RUN, *words), vocabulary)
    assert problem in found


def test_what_plan_warns_of_is_told():
    problem, [warning] = plan_problems(("--data-path", "nca:tokens=164M", "/data/text", *RUN), 50_257)
    assert problem is None
    assert warning.startswith("NCA ends after 313 optimizer steps")


def test_what_a_launch_s_own_environment_allows_is_not_warned_of(monkeypatch):
    monkeypatch.setattr("megatron_nca.training.extra_state.installed_version", lambda: "2.20.2")
    flags = ("--data-path", "nca:tokens=164M", "/data/text", *RUN, "--fp8-format", "hybrid")
    [told] = resume_advices(flags, {})
    assert "Set NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE=1" in told
    assert resume_advices(flags, {"NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE": "1"}) == ()


@pytest.mark.slow
def test_a_launch_is_rehearsed_killed_and_resumed(checkout, corpus):  # noqa: F811
    compile_helpers(checkout)
    launch = ("torchrun", "--nproc-per-node", "8", "-m", "megatron_nca", checkout.script)
    done = rehearse("--json", "--", *launch, "--data-path", ENTRY, corpus, *LAUNCH)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    checks = {check["name"]: check for check in result["checks"]}
    assert {name for name, check in checks.items() if check["state"] == "FAILED"} == set()
    assert checks["arguments"]["detail"].endswith("for 8 ranks, 512 samples a step")
    assert "nothing went back after a step" in checks["switch"]["detail"]
    assert checks["kill, resume"]["detail"] == "killed after 9, resumed from 5: losses of 6, 8, 9 are equal"
    # 164M tokens are 160,157 sequences of 1,024, and the batch in which they end is the 313th of 512.
    assert result["switch"] == {"iteration": 313, "samples": 160_256, "tokens": 160_256 * 1024}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data-path", "nca:tokns=164M", "/data/text"), "tokns=164M: is no key of an entry"),
        (("--global-batch-size", "500"), "is not divisible by micro batch size (4) times data parallel size (8)"),
        (("--dataloader-type", "cyclic"), "nca: entries need --dataloader-type single"),
        (("--data-path", "nca:tokens=164M", "/data/text"), "do not fit the tokenizer, which has"),
        (("--nca-lrr", "1e-4"), "unrecognized arguments: --nca-lrr 1e-4"),
    ],
    ids=["key", "batch", "loader", "tokenizer", "flag"],
)
def test_a_broken_launch_is_stopped_in_its_own_words(checkout, corpus, change, message):  # noqa: F811
    launch = ("torchrun", "--nproc-per-node", "8", "-m", "megatron_nca", checkout.script)
    done = rehearse("--json", "--", *launch, "--data-path", ENTRY, corpus, *LAUNCH, *change)
    assert done.returncode == 1
    failed = json.loads(done.stdout)["checks"][-1]
    assert failed["state"] == "FAILED"
    assert message in failed["detail"]
