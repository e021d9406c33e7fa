import pytest
import torch
from torch.nn import functional

from megatron_nca.rehearsal.stand_in import state_space

BATCH, LENGTH, HEADS, WIDTH, STATES = 2, 6, 2, 3, 4


def layer_input(seed=0):
    """Gate, input, B, C and steps side by side, and the layer's own parameters."""
    draw = torch.Generator().manual_seed(seed)
    channels = HEADS * WIDTH
    projected = torch.randn(BATCH, LENGTH, 2 * channels + 2 * STATES + HEADS, generator=draw)
    kernel = torch.randn(channels + 2 * STATES, 3, generator=draw)
    return projected, kernel, torch.zeros(len(kernel)), torch.randn(HEADS, generator=draw), -torch.rand(HEADS, generator=draw)


def run(projected, kernel, bias, dt_bias, decays):
    weights = torch.ones(HEADS)
    return state_space.split_conv1d_scan(projected, kernel, bias, dt_bias, decays, weights, 4, headdim=WIDTH)


def test_the_layer_is_the_sum_over_earlier_tokens_of_its_definition():
    """y_t = sum over s <= t of exp(A (dt_{s+1} + ... + dt_t)) dt_s (C_t . B_s) x_s + x_t, written out."""
    projected, kernel, bias, dt_bias, decays = layer_input()
    channels = HEADS * WIDTH
    gate, mixed, steps = torch.split(projected, [channels, channels + 2 * STATES, HEADS], dim=-1)
    shifted = [functional.pad(mixed, (0, 0, 2 - tap, 0))[:, :LENGTH] * kernel[:, tap] for tap in range(3)]
    mixed = functional.silu(sum(shifted))
    x, b, c = torch.split(mixed, [channels, STATES, STATES], dim=-1)
    steps = functional.softplus(steps + dt_bias)
    expected = torch.zeros(BATCH, LENGTH, HEADS, WIDTH)
    for t in range(LENGTH):
        for s in range(t + 1):
            decay = torch.exp(decays * steps[:, s + 1 : t + 1].sum(1))
            weight = decay * steps[:, s] * (c[:, t] * b[:, s]).sum(-1, keepdim=True)
            expected[:, t] += weight[..., None] * x[:, s].unflatten(-1, (HEADS, WIDTH))
    expected = (expected + x.unflatten(-1, (HEADS, WIDTH))).flatten(-2) * functional.silu(gate)
    assert torch.allclose(run(projected, kernel, bias, dt_bias, decays), expected, atol=1e-5)


def test_a_token_does_not_see_later_ones():
    projected, *others = layer_input()
    changed = projected.clone()
    changed[:, 4:] += 1
    assert torch.equal(run(projected, *others)[:, :4], run(changed, *others)[:, :4])


def test_the_norm_is_over_groups():
    norm = state_space.GatedRMSNorm(4, eps=0.0, group_size=2)
    values = torch.tensor([3.0, 4.0, 0.0, 5.0])
    assert torch.allclose(norm(values), values / 12.5**0.5)


def test_what_only_a_gpu_has_says_so():
    with pytest.raises(RuntimeError, match="needs a GPU"):
        state_space._gpu_only()


def test_the_transform_is_its_own_inverse_up_to_the_size():
    values = torch.randn(3, 8)
    once = state_space.hadamard_transform(values)
    assert torch.allclose(once[:, 0], values.sum(1), atol=1e-5)
    assert torch.allclose(once[:, 1], (values * torch.tensor([1.0, -1.0] * 4)).sum(1), atol=1e-5)
    assert torch.allclose(state_space.hadamard_transform(once, 1 / 8), values, atol=1e-5)
