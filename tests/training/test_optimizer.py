from types import SimpleNamespace

import pytest
import torch

from megatron_nca.errors import NCAError
from megatron_nca.training import optimizer


def trained(*shapes):
    weights = [torch.nn.Parameter(torch.randn(*shape)) for shape in shapes]
    adam = torch.optim.Adam(weights, lr=1e-2)
    for _ in range(3):
        sum((weight**2).sum() for weight in weights).backward()
        adam.step()
    return weights, adam


def test_moments_and_steps_start_anew_in_place():
    weights, adam = trained((3, 2), (4,))
    moments = [adam.state[weight]["exp_avg"] for weight in weights]
    before = [weight.clone() for weight in weights]
    optimizer.reset_state(SimpleNamespace(optimizer=adam))
    for weight, moment, value in zip(weights, moments, before, strict=True):
        assert adam.state[weight]["exp_avg"] is moment
        assert not any(state.any() for state in adam.state[weight].values())
        assert torch.equal(weight, value)


def test_a_reset_optimizer_steps_like_a_new_one():
    (weight,), adam = trained((5,))
    optimizer.reset_state(SimpleNamespace(optimizer=adam))
    twin = torch.nn.Parameter(weight.detach().clone())
    new = torch.optim.Adam([twin], lr=1e-2)
    for parameter, stepper in ((weight, adam), (twin, new)):
        parameter.grad = torch.full_like(parameter, 0.3)
        stepper.step()
    assert torch.equal(weight, twin)


def test_fused_adams_count_in_their_groups():
    inner = SimpleNamespace(
        state={0: {"exp_avg": torch.ones(2), "master_param": torch.ones(2)}},
        param_groups=[{"step": 7}, {"step": torch.tensor([7], dtype=torch.int32)}, {}],
    )
    optimizer.reset_state(SimpleNamespace(optimizer=inner))
    assert inner.param_groups[0]["step"] == 0
    assert inner.param_groups[1]["step"].tolist() == [0]
    assert not inner.state[0]["exp_avg"].any()
    assert inner.state[0]["master_param"].all(), "a weight is no moment"


def test_chained_optimizers_are_all_reached():
    pairs = [trained((2,)) for _ in range(3)]
    chained = SimpleNamespace(
        chained_optimizers=[
            SimpleNamespace(optimizer=pairs[0][1]),
            SimpleNamespace(chained_optimizers=[SimpleNamespace(optimizer=adam) for _, adam in pairs[1:]]),
        ]
    )
    optimizer.reset_state(chained)
    assert not any(state["exp_avg"].any() for _, adam in pairs for state in adam.state.values())


def half(*shape):
    return torch.nn.Parameter(torch.randn(*shape, dtype=torch.float32).bfloat16())


def test_masters_of_changed_weights_follow_and_others_keep_every_bit():
    changed, kept = half(4, 2), half(4, 2)
    for parameter in (changed, kept):
        parameter.main_param = torch.nn.Parameter(parameter.float() + 1e-4)
    precise = kept.main_param.clone()
    leaf = SimpleNamespace(float16_groups=[[changed, kept]], optimizer=SimpleNamespace(state={}))
    optimizer.copy_to_master(leaf, [changed])
    assert torch.equal(changed.main_param, changed.float())
    assert torch.equal(kept.main_param, precise)


def test_a_sharded_master_takes_its_own_part():
    parameter = half(4, 2)
    parameter.main_param = torch.zeros(3)
    parameter.main_param_sharded = True
    held = SimpleNamespace(start=2, end=5)
    leaf = SimpleNamespace(
        model_param_gbuf_map={parameter: 0},
        _get_model_param_range_map=lambda _: {"param": held},
        optimizer=SimpleNamespace(state={}),
    )
    optimizer.copy_to_master(leaf, [parameter])
    assert torch.equal(parameter.main_param, parameter.float().flatten()[2:5])


def test_a_master_inside_the_state_is_made_anew_by_the_next_step():
    changed, kept = half(4), half(4)
    shards = [changed.detach(), kept.detach()]
    state = {shard: {"exp_avg": torch.ones(4), "master_param": torch.ones(4)} for shard in shards}
    leaf = SimpleNamespace(
        model_param_gbuf_map={changed: 0, kept: 0},
        model_float16_groups=[[changed, kept]],
        shard_float16_groups=[shards],
        optimizer=SimpleNamespace(state=state),
    )
    optimizer.copy_to_master(leaf, [changed])
    assert state[shards[0]] == {}
    assert state[shards[1]]["master_param"].all()


def test_cpu_offload_is_refused():
    leaf = SimpleNamespace(optimizer=SimpleNamespace(sub_optimizers=[]))
    with pytest.raises(NCAError, match="--optimizer-cpu-offload"):
        optimizer.check(leaf)


def test_fsdp_is_refused():
    leaf = SimpleNamespace(ddp_config=SimpleNamespace(use_megatron_fsdp=True), optimizer=SimpleNamespace())
    with pytest.raises(NCAError, match="Megatron FSDP"):
        optimizer.check(leaf)
