"""`megatron-nca rehearse` with a launch of Megatron-Bridge: whole, and stopped in Bridge's and the plugin's own words."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("megatron") is None or importlib.util.find_spec("megatron.bridge") is None:
    pytest.skip("needs Megatron-Bridge; make test-bridge brings it", allow_module_level=True)

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
ENTRY = "nca:tokens=164M,grid=4,colors=3,gzip=none,trajectory=64"
LAUNCH = (
    "torchrun",
    "--nproc-per-node",
    "8",
    "-m",
    "megatron_nca",
    "tests/bridge/launch_recipe.py",
    "llama3_8b_pretrain_config",
)


def rehearse(entry, text, *overrides):
    """Run the command on a launch of Llama 3 8B without context parallelism; nothing is fetched."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    own = ['dataset.split="90,5,5"', "tokenizer.vocab_size=255", "model.context_parallel_size=1"]
    words = [f'dataset.blend=[["{entry}","{text}"],null]', *own, *overrides]
    done = subprocess.run(
        [sys.executable, "-m", "megatron_nca.cli", "rehearse", "--json", "--", *LAUNCH, *words],
        capture_output=True, text=True, timeout=900, check=False, env=environment, cwd=PROJECT,
    )  # fmt: skip
    assert done.stdout, done.stderr[-4000:]
    return done.returncode, json.loads(done.stdout)


def test_a_launch_is_rehearsed_killed_and_resumed(corpus):
    code, result = rehearse(ENTRY, corpus, "nca.lr=1e-4")
    checks = {check["name"]: check for check in result["checks"]}
    assert {name for name, check in checks.items() if check["state"] == "FAILED"} == set(), checks
    assert code == 0
    assert checks["arguments"]["detail"].endswith("for 8 ranks, 512 samples a step")
    assert "the figures of LlamaConfig instead" in checks["model"]["detail"]
    assert checks["layout"]["detail"] == "2 of 8 ranks: data parallel 2"
    assert "nothing went back after a step" in checks["switch"]["detail"]
    assert checks["checkpoint"]["detail"] == "torch_dist after iteration 5"
    assert checks["kill, resume"]["detail"] == "killed after 9, resumed from 5: losses of 6, 7, 8, 9 are equal"
    # 164M tokens are 20,020 sequences of 8,192, and the batch in which they end is the 40th of 512.
    assert result["switch"] == {"iteration": 40, "samples": 20_480, "tokens": 20_480 * 8192}
    assert "model.transformer_impl" in result["left_out"]


@pytest.mark.parametrize(
    ("entry", "overrides", "message"),
    [
        (ENTRY, ["nca.lrr=1e-4"], "lrr"),
        ("nca:tokns=164M", [], "tokns=164M: is no key of an entry"),
        (ENTRY, ["train.global_batch_size=500"], "500"),
    ],
    ids=["option", "key", "batch"],
)
def test_a_broken_launch_is_stopped_in_its_own_words(corpus, entry, overrides, message):
    code, result = rehearse(entry, corpus, *overrides)
    failed = result["checks"][-1]
    assert (code, failed["name"], failed["state"]) == (1, "arguments", "FAILED")
    assert message in failed["detail"]


def test_a_text_that_is_not_there_is_named():
    code, result = rehearse(ENTRY, "/absent/text_document")
    failed = [check for check in result["checks"] if check["state"] == "FAILED"]
    assert code == 1
    assert failed[0]["detail"] == "/absent/text_document: not on this machine; --text PREFIX rehearses with another"
