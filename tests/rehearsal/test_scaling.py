"""A launch's flags scaled down: its kind stays, its sizes do not."""

from pathlib import Path

import pytest

from megatron_nca.rehearsal.checkouts import Checkout
from megatron_nca.rehearsal.launching import arguments
from megatron_nca.rehearsal.scaling import Case, scale


def scaled(words, name="pretrain_gpt.py"):
    return scale(Case(name, arguments(words.split())), Checkout(Path("/absent")))


@pytest.mark.parametrize(
    ("words", "layout"),
    [
        ("", {"data_parallel": 2}),
        ("--tensor-model-parallel-size 8", {"tensor_parallel": 2, "data_parallel": 2}),
        ("--tensor-model-parallel-size 8 --pipeline-model-parallel-size 16", {"tensor_parallel": 2, "pipeline_parallel": 2}),
        ("--num-experts 8 --expert-model-parallel-size 8", {"expert_parallel": 2, "data_parallel": 2}),
    ],
)
def test_a_layout_has_at_most_four_ranks_and_every_kind_that_fits(words, layout):
    found = scaled(words).layout
    assert {name: size for name, size in found.items() if size > 1} == layout
    ranks = found["tensor_parallel"] * found["pipeline_parallel"] * found["context_parallel"] * found["data_parallel"]
    assert ranks <= 4


def test_what_changes_the_training_stays_and_what_a_gpu_alone_has_goes():
    flags = scaled(
        "--swiglu --optimizer adam --clip-grad 1 --cuda-graph-impl local --tp-comm-overlap --ckpt-format torch_dist"
    ).flags
    assert {"--swiglu", "--optimizer", "--clip-grad", "--ckpt-format"} <= set(flags)
    assert not {"--cuda-graph-impl", "--tp-comm-overlap"} & set(flags)


def test_a_flag_with_several_values_keeps_them():
    flags = scaled("--spec megatron.core.models.mamba.mamba_layer_specs mamba_stack_spec").flags
    place = flags.index("--spec")
    assert flags[place + 1 : place + 3] == ("megatron.core.models.mamba.mamba_layer_specs", "mamba_stack_spec")


def test_a_script_of_state_space_models_has_a_pattern_of_layers():
    assert "--hybrid-override-pattern" in scaled("--num-layers 48", name="pretrain_mamba.py").flags


def test_experts_become_four():
    flags = arguments(scaled("--num-experts 64 --moe-router-topk 8").flags)
    assert (flags["--num-experts"], flags["--moe-router-topk"]) == ("4", "2")
