from types import SimpleNamespace
from typing import Any

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
    held = [dict(adam.state[weight]) for weight in weights]
    pointers = [{name: value.data_ptr() for name, value in state.items()} for state in held]
    before = [weight.clone() for weight in weights]
    optimizer.reset_state(SimpleNamespace(optimizer=adam))
    for weight, state, places, value in zip(weights, held, pointers, before, strict=True):
        assert all(adam.state[weight][name] is tensor for name, tensor in state.items())
        assert {name: tensor.data_ptr() for name, tensor in state.items()} == places
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
    counted = torch.tensor([7], dtype=torch.int32)
    inner = SimpleNamespace(
        state={0: {"exp_avg": torch.ones(2), "master_param": torch.ones(2)}},
        param_groups=[{"step": 7}, {"step": counted}, {}],
    )
    optimizer.reset_state(SimpleNamespace(optimizer=inner))
    assert inner.param_groups[0]["step"] == 0
    assert inner.param_groups[1]["step"] is counted, "a captured graph counts on in it"
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


def draw(*shape):
    return torch.randn(*shape)


def take(leaf, parameter, weight):
    """Give a parameter a new weight as the transition does: first itself, then its copies."""
    with torch.no_grad():
        parameter.copy_(weight)
    optimizer.MasterWeights(leaf).take(parameter, weight)


def test_masters_take_the_weight_as_it_was_drawn_and_others_keep_every_bit():
    changed, kept = half(4, 2), half(4, 2)
    for parameter in (changed, kept):
        parameter.main_param = torch.nn.Parameter(parameter.float() + 1e-4)
    precise, master = kept.main_param.clone(), changed.main_param
    leaf = SimpleNamespace(float16_groups=[[changed, kept]], optimizer=SimpleNamespace(state={}))
    weight = draw(4, 2)
    take(leaf, changed, weight)
    assert changed.main_param is master
    assert torch.equal(master, weight)
    assert torch.equal(changed, master.bfloat16())
    assert torch.equal(kept.main_param, precise)


def test_a_sharded_master_takes_its_own_part():
    parameter = half(4, 2)
    parameter.main_param = torch.zeros(3)
    parameter.main_param_sharded = True
    leaf = SimpleNamespace(
        model_param_gbuf_map={parameter: 0}, _get_model_param_range_map=range_map(2, 5), optimizer=SimpleNamespace(state={})
    )
    weight = draw(4, 2)
    take(leaf, parameter, weight)
    assert torch.equal(parameter.main_param, weight.flatten()[2:5])


def range_map(start, end):
    return lambda parameter: {"param": SimpleNamespace(start=start, end=end)}


def precision_aware(master, numbers=6):
    """(parameter, its optimizer, its state) where the master of a part of the parameter lies in the state."""
    parameter = half(4, 2)
    shard = parameter.detach().view(-1)[1 : 1 + numbers]
    state = {"exp_avg": torch.ones(numbers), **({} if master is None else {"master_param": master})}
    leaf = SimpleNamespace(
        model_param_gbuf_map={parameter: 0},
        model_float16_groups=[[parameter]],
        shard_float16_groups=[[shard]],
        _get_model_param_range_map=range_map(1, 1 + numbers),
        optimizer=SimpleNamespace(state={shard: state}),
    )
    return parameter, leaf, state


def test_a_master_inside_the_state_is_written_where_it_is():
    master = torch.ones(6)
    parameter, leaf, state = precision_aware(master)
    weight = draw(4, 2)
    take(leaf, parameter, weight)
    assert state["master_param"] is master
    assert torch.equal(master, weight.flatten()[1:7])
    assert state["exp_avg"].all(), "moments are another's to reset"


def test_a_remainder_and_its_parameter_make_up_the_weight():
    remainder = torch.zeros(6, dtype=torch.int16)
    parameter, leaf, state = precision_aware(remainder)
    weight = draw(4, 2)
    take(leaf, parameter, weight)
    assert state["master_param"] is remainder
    assert torch.equal(whole(parameter.detach().view(-1)[1:7], remainder), weight.flatten()[1:7])


def whole(parameter, remainder):
    """A float32 as Transformer Engine's kernel puts it together."""
    high = parameter.view(torch.int16).int() - (remainder < 0).int()
    return ((high << 16) | (remainder.int() & 0xFFFF)).view(torch.float32)


@pytest.mark.parametrize("bits", [0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x3FFFFFFF])
def test_a_remainder_at_a_tie_is_at_most_a_float32_s_last_bit_off(bits):
    weight = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    parameter = weight.bfloat16()
    remainder = optimizer._remainder(weight, parameter)
    assert abs(whole(parameter, remainder).view(torch.int32).item() - bits) <= 1
    tie_to_even = bits == 0x3F808000
    assert torch.equal(whole(parameter, remainder), weight) != tie_to_even


def test_a_master_of_fewer_bits_is_left_to_the_optimizer_that_scales_it():
    parameter, leaf, _ = precision_aware(torch.ones(6, dtype=torch.float16))
    calls = []
    leaf.optimizer.set_scaled_state = lambda shard, name, values: calls.append((shard, name, values))
    weight = draw(4, 2)
    take(leaf, parameter, weight)
    ((shard, name, values),) = calls
    assert shard is leaf.shard_float16_groups[0][0]
    assert name == "master_param"
    assert torch.equal(values, weight.flatten()[1:7])


def test_a_state_that_is_still_to_be_made_is_left_to_the_first_step():
    parameter, leaf, state = precision_aware(None)
    take(leaf, parameter, draw(4, 2))
    assert "master_param" not in state


def test_no_optimizer_has_no_masters():
    take(None, half(4), draw(4))


def test_cpu_offload_is_refused():
    leaf = SimpleNamespace(optimizer=SimpleNamespace(sub_optimizers=[]))
    with pytest.raises(NCAError, match="--optimizer-cpu-offload"):
        optimizer.check(leaf)


def test_soaps_eigenbases_start_as_identities_in_place():
    weight = torch.nn.Parameter(torch.zeros(3, 2))
    state: dict[str, Any] = {
        "step": 7,
        "exp_avg": torch.ones(3, 2),
        "L": torch.ones(3, 3),
        "Q_L": torch.randn(3, 3),
        "Q_R": torch.randn(2, 2),
    }
    bases = state["Q_L"], state["Q_R"]
    inner = SimpleNamespace(state={weight: state}, param_groups=[{}])
    optimizer.reset_state(SimpleNamespace(optimizer=inner))
    assert (state["step"], state["exp_avg"].any(), state["L"].any()) == (0, False, False)
    assert state["Q_L"] is bases[0]
    assert torch.equal(bases[0], torch.eye(3))
    assert torch.equal(bases[1], torch.eye(2))


def test_a_norm_that_a_weight_has_from_its_beginning_is_kept():
    weight = torch.nn.Parameter(torch.zeros(3, 2))
    state = {"momentum_buffer": torch.ones(3, 2), "hyperball_R": torch.tensor(2.0)}
    optimizer.reset_state(SimpleNamespace(optimizer=SimpleNamespace(state={weight: state}, param_groups=[])))
    assert not state["momentum_buffer"].any()
    assert state["hyperball_R"] == 2
