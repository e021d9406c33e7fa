"""Megatron-LM starts a text from a transferred checkpoint that it wrote itself."""

import math
from dataclasses import replace

import pytest

from megatron_nca.rehearsal.megatron_lm import Run
from tests.rehearsal.conftest import corpus, pytest_generate_tests  # noqa: F401

LAYOUTS = {
    "torch TP=2": (("--ckpt-format", "torch"), {"tensor_parallel": 2}),
    "torch PP=2 untied": (("--ckpt-format", "torch", "--untie-embeddings-and-output-weights"), {"pipeline_parallel": 2}),
    "torch PP=2 interleaved": (
        ("--ckpt-format", "torch", "--num-layers", "4", "--num-layers-per-virtual-pipeline-stage", "1"),
        {"pipeline_parallel": 2},
    ),
    "torch PP=2 multi-token prediction": (
        ("--ckpt-format", "torch", "--mtp-num-layers", "1", "--position-embedding-type", "rope"),
        {"pipeline_parallel": 2},
    ),
    "torch_dist bf16 DP=2": (("--ckpt-format", "torch_dist", "--bf16", "--use-distributed-optimizer"), {"data_parallel": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_megatron_starts_a_text_of_another_tokenizer(succeed, checkout, corpus, tmp_path, layout):  # noqa: F811
    flags, sizes = LAYOUTS[layout]
    flags = (*flags, "--hidden-dropout", "0", "--attention-dropout", "0")
    saving = ("--data-path", "nca:grid=4,colors=3,gzip=none,trajectory=64", "--save", "nca", "--save-interval", "4")
    nca = replace(Run(checkout, (*saving, "--train-iters", "4", *flags)), **sizes)
    nca.complete(tmp_path)
    succeed("transfer", "--load", tmp_path / "nca", "--save", tmp_path / "start", "--padded-vocab-size", "384")
    reading = ("--data-path", str(corpus), "--load", str(tmp_path / "start"), "--finetune", "--train-iters", "4")
    log = replace(nca, flags=(*reading, *flags), vocabulary=384, plugin=False).complete(tmp_path / "text")
    assert min(log.losses) == 1
    assert log.losses[1] == pytest.approx(math.log(384), abs=0.3)
    assert log.losses[4] < log.losses[1]
