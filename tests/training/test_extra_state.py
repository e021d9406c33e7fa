import copy
from types import SimpleNamespace

import pytest

from megatron_nca.training.extra_state import VARIABLE, advices, is_refused

DELAYED = SimpleNamespace(fp8="hybrid", fp8_recipe="delayed")


@pytest.mark.parametrize("version", ["2.16.1", "2.17.1", "2.17.1+abc123", "2.20.2", "3.0.0"])
def test_versions_that_refuse(version):
    assert is_refused(version, {})
    assert not is_refused(version, {VARIABLE: "1"})


@pytest.mark.parametrize("version", ["1.13.0", "2.11.0", "2.14.1", "2.16.0", "2.17.0", "2.17.0+2.20"])
def test_versions_that_load(version):
    assert not is_refused(version, {})


def test_a_launch_that_would_not_resume_is_told_what_to_set():
    [calls] = advices(DELAYED, "2.17.1", {})
    assert calls.startswith("Transformer Engine 2.17.1 will refuse to resume this run")
    assert f"Set {VARIABLE}=1" in calls


def test_without_a_version_at_hand_the_versions_are_named():
    assert "2.16.1, and from 2.17.1 on, will refuse" in advices(DELAYED, None, {})[0]


@pytest.mark.parametrize(
    "args",
    [
        SimpleNamespace(),
        SimpleNamespace(fp8=None, fp8_recipe="delayed"),
        SimpleNamespace(fp8="hybrid", fp8_recipe="tensorwise"),
        SimpleNamespace(fp8="e4m3", fp8_recipe="blockwise"),
    ],
)
def test_what_keeps_no_pickle_is_told_nothing(args):
    assert advices(args, "2.17.1", {}) == ()


def test_a_recipe_that_is_not_named_is_delayed():
    assert advices(SimpleNamespace(fp8_format="hybrid"), "2.20.2", {})


def test_a_launch_that_has_set_it_is_told_nothing():
    assert advices(DELAYED, "2.17.1", {VARIABLE: "1"}) == ()


EXPERTS = SimpleNamespace(
    fp8="hybrid",
    fp8_recipe="delayed",
    fp8_param_gather=True,
    moe_grouped_gemm=True,
    num_experts=8,
    expert_model_parallel_size=2,
    ckpt_format="torch_dist",
)


def test_grouped_experts_whose_state_would_not_come_back_are_told_so():
    [told] = advices(EXPERTS, "2.11.0", {})
    assert "will not go on from its checkpoints, with or without the plugin" in told
    assert "the first of 4 grouped experts" in told


def test_both_reasons_are_told():
    assert len(advices(EXPERTS, "2.20.2", {})) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fp8", None),
        ("fp8_recipe", "tensorwise"),
        ("fp8_param_gather", False),
        ("moe_grouped_gemm", False),
        ("num_experts", None),
        ("num_experts", "many"),
        ("expert_model_parallel_size", 8),
        ("ckpt_format", "torch"),
        ("moe_use_legacy_grouped_gemm", True),
    ],
)
def test_experts_whose_state_comes_back_are_told_nothing(name, value):
    args = copy.copy(EXPERTS)
    setattr(args, name, value)
    assert advices(args, "2.11.0", {}) == ()
