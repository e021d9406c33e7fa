"""The paper's run: what its script launches has the paper's phases, batches and rates, in both arms."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_nca.cli.main import main
from megatron_nca.rehearsal.checkouts import compile_helpers, find_checkouts
from tests.conftest import write_text

SCRIPT = Path(__file__).parents[2] / "examples/paper/megatron_lm.sh"
ONE_GPU = SCRIPT.with_name("one_gpu.sh")


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


@pytest.fixture
def stage(tmp_path):
    """Start the one-GPU script with a Python that takes down its words and saves where BY tells; return them, a list a call."""
    shown = tmp_path / "python"
    shown.write_text(
        "#!/usr/bin/env bash\n"
        'printf "%s\\n" "$@" "" >> "$WORDS"\n'
        "while [ $# -gt 0 ]; do case $1 in --save) saved=$2 ;; --train-iters) steps=$2 ;; esac; shift; done\n"
        '[ -n "${saved-}" ] || exit 0\n'
        'mkdir -p "$saved" && echo "${BY:-$steps}" > "$saved/latest_checkpointed_iteration.txt"\n'
    )
    shown.chmod(0o755)

    def start(*flags, **environment):
        words = tmp_path / "words"
        words.write_text("")
        known = {"PATH": os.environ["PATH"], "PYTHON": str(shown), "WORDS": str(words), "SAVE": str(tmp_path / "saved")}
        known |= {"MEGATRON_LM": "/opt/Megatron-LM", "DATA": "/data/owt"}
        done = subprocess.run(
            [ONE_GPU, *flags], env={**known, **environment}, check=True, timeout=60, capture_output=True, text=True
        )
        return [call.split("\n") for call in words.read_text().split("\n\n") if call], done.stdout

    return start


def test_one_gpu_goes_on_with_the_run_that_is_not_at_its_end_and_compares_them_all_at_last(stage, tmp_path):
    calls, said = stage(BY="100")
    assert [call[call.index("--save") + 1] for call in calls] == [str(tmp_path / "saved/nca-1")]
    assert "nca-1 is at iteration 100 of 8820; start this again to go on" in said
    calls, said = stage("--seed", "7")
    runs = [f"{arm}-{seed}" for seed in (1, 2, 3) for arm in ("nca", "text")]
    assert [call[call.index("--save") + 1] for call in calls[:-1]] == [str(tmp_path / "saved" / run) for run in runs]
    assert all(call[-2:] == ["--seed", "7"] for call in calls[:-1])
    logs = [str(tmp_path / f"saved/nca-{seed}.log") for seed in (1, 2, 3)]
    assert calls[-1][:7] == ["-m", "megatron_nca.cli", "compare", "--paired", "--run", *logs[:2]]
    assert (tmp_path / "saved/comparison.txt").exists()
    assert stage()[0] == [calls[-1]], "nothing is trained again"


def test_one_gpu_ends_a_call_whose_minutes_are_over(stage):
    calls, said = stage(MINUTES="0")
    assert calls == []
    assert "nca-1 is at iteration 0 of 8820" in said


def test_one_gpu_refuses_minutes_that_are_none(tmp_path):
    environment = {
        "PATH": os.environ["PATH"],
        "MINUTES": "9.5",
        "MEGATRON_LM": "/m",
        "DATA": "/d",
        "SAVE": str(tmp_path / "saved"),
    }
    done = subprocess.run([ONE_GPU], env=environment, check=False, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "one_gpu.sh: MINUTES=9.5: give whole minutes\n")
    assert not (tmp_path / "saved").exists()


def test_one_gpus_plan_has_the_papers_nca_and_the_same_text_in_both_arms(stage, capsys):
    calls, _ = stage(SEEDS="1")
    tokenizer = ("--tokenizer-type", "NullTokenizer", "--vocab-size", "50257")
    assert main(["plan", "--strict", "--json", "--", "torchrun", *calls[0][2:], *tokenizer]) == 0
    result = json.loads(capsys.readouterr().out)
    nca, text = result["phases"]
    assert (nca["tokens"], nca["last_iteration"]) == (164_003_840, 5005)
    assert text["last_iteration"] - nca["last_iteration"] == 3815
    assert text["tokens"] == 3815 * 256 * 1024
    assert calls[1][calls[1].index("--train-iters") + 1] == "3815"
    assert not [word for word in calls[1] if word.startswith(("nca:", "--nca"))]


@pytest.mark.slow
def test_one_gpus_six_runs_go_on_stage_by_stage_on_megatron_lm(tmp_path):
    checkouts = find_checkouts()
    if not checkouts:
        pytest.skip("needs a checkout of Megatron-LM: set MEGATRON_LM")
    compile_helpers(checkouts[0])
    write_text(tmp_path / "text", 400, vocab_size=255)
    small = """
        --num-layers 2 --hidden-size 64 --ffn-hidden-size 128 --num-attention-heads 4
        --seq-length 64 --max-position-embeddings 64
        --micro-batch-size 4 --global-batch-size 8 --tokenizer-type NullTokenizer --vocab-size 255 --split 90,5,5
        --make-vocab-size-divisible-by 64 --eval-interval 4 --eval-iters 1 --log-interval 1 --lr-warmup-fraction 0.2
        --transformer-impl local --distributed-backend gloo --attention-backend unfused --no-persist-layer-norm
        --no-gradient-accumulation-fusion --no-masked-softmax-fusion --no-rope-fusion --exit-interval 9
    """
    environment = {
        **os.environ, "MEGATRON_LM": str(checkouts[0].path), "MODULE": "megatron_nca.rehearsal",
        "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "SEEDS": "1 2",
        "DATA": str(tmp_path / "text"), "SAVE": str(tmp_path / "saved"), "NCA_STEPS": "10", "TEXT_STEPS": "8",
        "NCA": "nca:tokens=2560,grid=6,colors=3,gzip=none,batch=4",
    }  # fmt: skip
    said = []
    for _ in range(6):
        done = subprocess.run(
            [ONE_GPU, *small.split()], capture_output=True, text=True, timeout=500, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        said.append(done.stdout)
        if (tmp_path / "saved/comparison.txt").exists():
            break
    assert "nca-1 is at iteration 9 of 18" in said[0]
    table = (tmp_path / "saved/comparison.txt").read_text()
    assert "for 2,560 tokens (samples 0 to 40, batches of 4)" in table
    assert "At 3.07K text tokens" in table
    assert "(2 against 2" in table
