"""Optimizers, norms and scales over lists against float64."""

import math

import numpy as np
import pytest
import torch

from megatron_nca.rehearsal.extension import multi_tensor
from megatron_nca.rehearsal.extension.names import DType
from tests.te.fp8_numbers import nearest

CHUNK, STEPS = 2048, 4
LR, BETA1, BETA2, EPS, DECAY = 0.01, 0.8, 0.95, 1e-6, 0.1


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def flag():
    return torch.zeros(1, dtype=torch.int32)


def stated(weight, gradients, mode, correct):
    """Weights after steps of Adam, as its paper and AdamW's have it."""
    weight, m, v = weight.double(), 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        gradient = gradient.double() + (DECAY * weight if mode == 0 else 0)
        m = BETA1 * m + (1 - BETA1) * gradient
        v = BETA2 * v + (1 - BETA2) * gradient**2
        first, second = (m / (1 - BETA1**step), v / (1 - BETA2**step)) if correct else (m, v)
        weight = weight - LR * (first / (second.sqrt() + EPS) + (DECAY * weight if mode == 1 else 0))
    return weight, m, v


def numbers(step, mode=1, correct=1, as_tensors=False):
    lr, count = (torch.tensor(LR), torch.tensor([step], dtype=torch.int32)) if as_tensors else (LR, step)
    return lr, BETA1, BETA2, EPS, count, mode, correct, DECAY


GRADIENTS = [draw(50, seed=seed) for seed in range(1, STEPS + 1)]


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("correct", [0, 1])
def test_adam(mode, correct):
    weight = draw(50)
    expected, first, second = stated(weight, GRADIENTS, mode, correct)
    m, v = torch.zeros(50), torch.zeros(50)
    for step, gradient in enumerate(GRADIENTS, 1):
        multi_tensor.multi_tensor_adam(CHUNK, flag(), [[gradient], [weight], [m], [v]], *numbers(step, mode, correct))
    for own, should in ((weight, expected), (m, first), (v, second)):
        torch.testing.assert_close(own.double(), should, rtol=1e-5, atol=1e-6)


def test_a_master_takes_the_step_and_the_parameter_its_rounding():
    master, parameter = draw(50), draw(50).bfloat16()
    expected = stated(master, GRADIENTS, 1, 1)[0]
    m, v = torch.zeros(50), torch.zeros(50)
    for step, gradient in enumerate(GRADIENTS, 1):
        multi_tensor.multi_tensor_adam(CHUNK, flag(), [[gradient], [parameter], [m], [v], [master]], *numbers(step))
    torch.testing.assert_close(master.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(parameter, master.bfloat16())


def test_moments_of_fewer_bits_are_rounded_when_they_are_stored():
    weight, m, v = draw(50), torch.zeros(50, dtype=torch.float16), torch.zeros(50, dtype=torch.bfloat16)
    _, first, second = stated(weight, GRADIENTS[:1], 1, 1)
    multi_tensor.multi_tensor_adam(CHUNK, flag(), [[GRADIENTS[0]], [weight], [m], [v]], *numbers(1))
    assert torch.equal(m, first.half())
    assert torch.equal(v, second.bfloat16())


def test_an_fp8_parameter_is_cast_with_its_scale_and_its_magnitude_noted():
    master, m, v = draw(50), torch.zeros(50), torch.zeros(50)
    parameter, scale = torch.zeros(50, dtype=torch.uint8), torch.tensor([16.0])
    amax, inverse = torch.zeros(1), torch.zeros(1)
    expected = stated(master, GRADIENTS[:1], 1, 1)[0].numpy()
    lists = [[GRADIENTS[0]], [parameter], [m], [v], [master], [scale], [amax], [inverse]]
    multi_tensor.multi_tensor_adam_fp8(CHUNK, flag(), lists, *numbers(1), DType.kFloat8E4M3)
    rounded = nearest(master.double().numpy() * 16, "kFloat8E4M3")
    assert np.array_equal(parameter.view(torch.float8_e4m3fn).double().numpy(), rounded)
    assert math.isclose(amax.item(), np.abs(expected).max(), rel_tol=1e-6)
    assert inverse.item() == 1 / 16


def test_a_master_in_two_halves_takes_the_step_of_a_whole_one():
    whole = draw(2000)
    bits = whole.view(torch.int32)
    low = (bits & 0xFFFF).to(torch.int16)
    # The upper half is rounded to nearest, as the parameter is.
    high = ((bits >> 16) + (low < 0).int()).to(torch.int16)
    parameter, remainder = high.view(torch.bfloat16).clone(), low.clone()
    m, v, own_m, own_v = (torch.zeros(2000) for _ in range(4))
    for step in range(1, STEPS + 1):
        gradient = draw(2000, seed=step)
        multi_tensor.multi_tensor_adam(CHUNK, flag(), [[gradient], [whole], [m], [v]], *numbers(step))
        lists = [[gradient], [parameter], [own_m], [own_v], [remainder]]
        multi_tensor.multi_tensor_adam_param_remainder(CHUNK, flag(), lists, *numbers(step))
    bits = whole.view(torch.int32)
    assert torch.equal(remainder, (bits & 0xFFFF).to(torch.int16))
    assert torch.equal(parameter.view(torch.int16).int(), (bits >> 16) + ((bits & 0xFFFF) >= 0x8000).int())


class TestCapturable:
    def step(self, noop, scale=1.0):
        weight, m, v, gradient = draw(50), torch.zeros(50), torch.zeros(50), GRADIENTS[0].clone() / scale
        lists = [[gradient], [weight], [m], [v]]
        given = numbers(1, as_tensors=True)
        multi_tensor.multi_tensor_adam_capturable(CHUNK, noop, lists, *given, torch.tensor([scale]))
        return weight

    def test_steps_with_numbers_in_tensors_and_unscaled_gradients(self):
        expected = stated(draw(50), GRADIENTS[:1], 1, 1)[0]
        torch.testing.assert_close(self.step(flag(), 8.0).double(), expected, rtol=1e-5, atol=1e-6)

    def test_does_not_step_where_gradients_overflowed(self):
        assert torch.equal(self.step(torch.ones(1, dtype=torch.int32)), draw(50))

    def test_with_masters(self):
        master, parameter = draw(50), draw(50).half()
        lists = [[GRADIENTS[0].clone()], [parameter], [torch.zeros(50)], [torch.zeros(50)], [master]]
        step = multi_tensor.FUNCTIONS["multi_tensor_adam_capturable_master"]
        step(CHUNK, flag(), lists, *numbers(1, as_tensors=True), torch.ones(1))
        expected = stated(draw(50), GRADIENTS[:1], 1, 1)[0]
        torch.testing.assert_close(master.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(parameter, master.half())


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay_after", [False, True])
def test_sgd(nesterov, decay_after):
    weight, held, copy = draw(50), torch.zeros(50), torch.zeros(50, dtype=torch.float16)
    expected, moved = weight.double(), None
    for step, gradient in enumerate(GRADIENTS):
        lists = [[gradient], [weight], [held], [copy]]
        multi_tensor.multi_tensor_sgd(CHUNK, flag(), lists, DECAY, 0.9, 0.0, LR, nesterov, step == 0, decay_after, 0.5)
        g = gradient.double() / 2 + (0 if decay_after else DECAY * expected)
        moved = g if moved is None else 0.9 * moved + g
        update = g + 0.9 * moved if nesterov else moved
        expected = expected - LR * (update + (DECAY * expected if decay_after else 0))
    torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(copy, weight.half())


def test_sgd_does_not_step_where_gradients_overflowed():
    weight = draw(50)
    lists = [[GRADIENTS[0]], [weight], [torch.zeros(50)]]
    multi_tensor.multi_tensor_sgd(CHUNK, torch.ones(1), lists, DECAY, 0.9, 0.0, LR, False, True, False, 1.0)
    assert torch.equal(weight, draw(50))


@pytest.mark.parametrize("scale", [lambda: 0.25, lambda: torch.tensor([0.25])])
def test_scale(scale):
    source, target, noop = draw(50), torch.zeros(50, dtype=torch.bfloat16), flag()
    name = "multi_tensor_scale" if isinstance(scale(), float) else "multi_tensor_scale_tensor"
    multi_tensor.FUNCTIONS[name](CHUNK, noop, [[source], [target]], scale())
    assert torch.equal(target, (source.double() / 4).bfloat16())
    assert noop.item() == 0


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_scaling_what_is_not_finite_raises_the_flag(value):
    noop = flag()
    multi_tensor.multi_tensor_scale(CHUNK, noop, [[torch.tensor([1.0, value])], [torch.zeros(2)]], 1.0)
    assert noop.item() == 1


def test_norms():
    tensors = [draw(50), draw(3, 4, seed=1).bfloat16()]
    each = [math.sqrt(float(tensor.double().square().sum())) for tensor in tensors]
    total, own = multi_tensor.multi_tensor_l2norm(CHUNK, flag(), [tensors], True)
    assert np.allclose(own.double().numpy(), each, rtol=1e-6)
    assert math.isclose(total.item(), math.hypot(*each), rel_tol=1e-6)
    unscaled, own = multi_tensor.multi_tensor_unscale_l2norm(CHUNK, flag(), [tensors], torch.tensor([0.5]), True)
    assert math.isclose(unscaled.item(), math.hypot(*each) / 2, rel_tol=1e-6)
    assert np.allclose(own.double().numpy(), np.array(each) / 2, rtol=1e-6)
    assert torch.equal(tensors[0], draw(50))


def test_the_norm_of_nothing_is_zero():
    assert multi_tensor.multi_tensor_l2norm(CHUNK, flag(), [[]])[0].tolist() == [0]


@pytest.mark.parametrize("power_of_two", [False, True])
def test_scales_and_their_reciprocals(power_of_two):
    amax = draw(20).abs()
    scale, inverse = torch.zeros(20), torch.zeros(20)
    multi_tensor.multi_tensor_compute_scale_and_scale_inv(CHUNK, flag(), [[amax], [scale], [inverse]], 448.0, power_of_two, 0.0)
    expected = 448.0 / amax.double().numpy()
    expected = 2.0 ** np.floor(np.log2(expected)) if power_of_two else expected
    assert np.allclose(scale.double().numpy(), expected, rtol=1e-6)
    assert np.allclose(inverse.double().numpy(), 1 / expected, rtol=1e-6)


def test_exponents_of_groups():
    amax, exponents = draw(20).abs().bfloat16(), torch.zeros(20, dtype=torch.uint8)
    multi_tensor.multi_tensor_compute_scale_inv_e8m0(CHUNK, None, [[amax], [exponents]])
    quotient = amax.float().numpy() * np.float32(1 / 448)
    assert np.array_equal(exponents.numpy(), 127 + np.ceil(np.log2(quotient.astype(np.float64))))
