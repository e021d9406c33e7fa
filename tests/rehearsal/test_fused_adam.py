import pytest
import torch

from megatron_nca.rehearsal.stand_in.fused_adam import FusedAdam

SETTINGS = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}


def train(make_optimizer, steps=5):
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 7, dtype=torch.float64))
    optimizer = make_optimizer([parameter])
    for step in range(steps):
        optimizer.zero_grad()
        (parameter - step).pow(3).sum().backward()
        optimizer.step()
    return parameter.detach(), optimizer


@pytest.mark.parametrize(("adam_w_mode", "reference"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)])
def test_it_takes_the_steps_of_pytorch_s_adam(adam_w_mode, reference):
    ours, _ = train(lambda parameters: FusedAdam(parameters, adam_w_mode=adam_w_mode, **SETTINGS))
    theirs, _ = train(lambda parameters: reference(parameters, **SETTINGS))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_step_belongs_to_the_group():
    _, optimizer = train(FusedAdam, steps=3)
    assert optimizer.param_groups[0]["step"] == 3
    assert {name for state in optimizer.state.values() for name in state} == {"exp_avg", "exp_avg_sq"}
