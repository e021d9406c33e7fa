"""Norms, activations, plain products and padded rows against float64."""

import math

import numpy as np
import pytest
import torch

from megatron_nca.rehearsal.extension import activations, gemm, norms, rows
from megatron_nca.rehearsal.extension.names import DType

EPS = 1e-5


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(actual, expected, tolerance=2e-6):
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def gamma_of(weight, zero_centered):
    return weight.double() + (1 if zero_centered else 0)


def layer_norm(x, gamma, beta):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (variance + EPS).sqrt() * gamma + beta


def rms_norm(x, gamma):
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * gamma


@pytest.mark.parametrize("zero_centered", [False, True])
class TestNorms:
    x, weight, bias, gradient = draw(3, 5, 64), draw(64, seed=1), draw(64, seed=2), draw(3, 5, 64, seed=3)

    def gradients(self, norm, *leaves):
        leaves = [leaf.double().requires_grad_() for leaf in leaves]
        return torch.autograd.grad(norm(*leaves), leaves, self.gradient.double())

    def test_layer_norm(self, zero_centered):
        y, mean, reciprocal = norms.layernorm_fwd(
            self.x, self.weight, self.bias, EPS, None, None, DType.kFloat32, 0, zero_centered
        )
        x = self.x.double()
        close(y, layer_norm(x, gamma_of(self.weight, zero_centered), self.bias.double()))
        close(mean, x.mean(-1).reshape(-1))
        close(reciprocal, (x.var(-1, correction=0) + EPS).rsqrt().reshape(-1))

    def test_layer_norm_backwards(self, zero_centered):
        _, mean, reciprocal = norms.layernorm_fwd(
            self.x, self.weight, self.bias, EPS, None, None, DType.kFloat32, 0, zero_centered
        )
        found = norms.layernorm_bwd(self.gradient, self.x, mean, reciprocal, self.weight, 0, zero_centered)
        expected = self.gradients(
            lambda x, weight, bias: layer_norm(x, weight + (1 if zero_centered else 0), bias), self.x, self.weight, self.bias
        )
        for own, stated in zip(found, expected, strict=True):
            close(own, stated, 1e-5)

    def test_rms_norm(self, zero_centered):
        y, mean, reciprocal = norms.rmsnorm_fwd(self.x, self.weight, EPS, None, None, DType.kFloat32, 0, zero_centered)
        close(y, rms_norm(self.x.double(), gamma_of(self.weight, zero_centered)))
        assert mean is None
        close(reciprocal, (self.x.double().square().mean(-1) + EPS).rsqrt().reshape(-1))

    def test_rms_norm_backwards(self, zero_centered):
        reciprocal = norms.rmsnorm_fwd(self.x, self.weight, EPS, None, None, DType.kFloat32, 0, zero_centered)[2]
        found = norms.rmsnorm_bwd(self.gradient, self.x, reciprocal, self.weight, 0, zero_centered)
        expected = self.gradients(lambda x, weight: rms_norm(x, weight + (1 if zero_centered else 0)), self.x, self.weight)
        for own, stated in zip(found, expected, strict=True):
            close(own, stated, 1e-5)
        added = draw(3, 5, 64, seed=4)
        summed = norms.rmsnorm_bwd_add(self.gradient, self.x, added, reciprocal, self.weight, 0, zero_centered)
        close(summed[0], expected[0] + added.double(), 1e-5)


def test_a_norm_writes_where_it_is_told_in_the_type_it_is_told():
    x, out = draw(4, 64, dtype=torch.bfloat16), torch.zeros(4, 64, dtype=torch.bfloat16)
    y = norms.rmsnorm_fwd(x, torch.ones(64), EPS, out, None, DType.kBFloat16, 0, False)[0]
    assert y is out
    close(out, rms_norm(x.double(), torch.ones(64).double()), 2**-8)


def sigmoid(x):
    return 1 / (1 + (-x).exp())


STATED = {
    "gelu": lambda x: x / 2 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()),
    "qgelu": lambda x: x * sigmoid(1.702 * x),
    "relu": lambda x: x.clamp(min=0),
    "srelu": lambda x: x.clamp(min=0) ** 2,
    "silu": lambda x: x * sigmoid(x),
}
GATES = {"geglu": "gelu", "qgeglu": "qgelu", "reglu": "relu", "sreglu": "srelu", "swiglu": "silu"}


def stated(name):
    if name in STATED:
        return STATED[name]
    activation = STATED.get(GATES.get(name, ""), sigmoid)
    return lambda x: activation(x[..., : x.shape[-1] // 2]) * x[..., x.shape[-1] // 2 :]


@pytest.mark.parametrize("name", [*STATED, *GATES, "glu"])
class TestActivations:
    def test_forwards(self, name):
        x = 3 * draw(7, 32)
        close(activations.FUNCTIONS[name](x, None), stated(name)(x.double()))

    def test_backwards(self, name):
        x = (3 * draw(7, 32)).double().requires_grad_()
        y = stated(name)(x)
        gradient = draw(*y.shape, seed=1)
        (expected,) = torch.autograd.grad(y, x, gradient.double())
        close(activations.FUNCTIONS[f"d{name}"](gradient, x.detach().float(), None), expected)
        if name in STATED:
            bias, own = activations.FUNCTIONS[f"dbias_d{name}"](gradient, x.detach().float(), None)
            close(bias, expected.sum(0), 1e-5)
            close(own, expected)


def multiply(a, transposed_a, b, transposed_b, output=None, **options):
    arguments = {
        "quantizer": None, "output_dtype": DType.kFloat32, "bias": None, "bias_type": DType.kBFloat16, "gelu": False,
        "gelu_in": None, "grad": False, "workspace": None, "workspace_size": 0, "accumulate": False,
        "use_split_accumulator": False, **options,
    }  # fmt: skip
    return gemm.generic_gemm(a, transposed_a, b, transposed_b, output, **arguments)


class TestProducts:
    weight, inputs, gradient = draw(24, 16), draw(2, 5, 16, seed=1), draw(2, 5, 24, seed=2)

    def test_forwards(self):
        result = multiply(self.weight, True, self.inputs, False)[0]
        assert result.shape == (2, 5, 24)
        close(result, self.inputs.double() @ self.weight.double().t())

    def test_to_the_input(self):
        result = multiply(self.weight, False, self.gradient, False)[0]
        close(result, self.gradient.double() @ self.weight.double())

    def test_to_the_weight(self):
        result = multiply(self.inputs, False, self.gradient, True)[0]
        close(result, self.gradient.double().reshape(-1, 24).t() @ self.inputs.double().reshape(-1, 16))

    def test_bias_is_added_forwards_and_summed_backwards(self):
        bias = draw(24, seed=3)
        result = multiply(self.weight, True, self.inputs, False, bias=bias)[0]
        close(result, self.inputs.double() @ self.weight.double().t() + bias.double())
        gradient = multiply(self.inputs, False, self.gradient, True, bias=bias, grad=True)[1]
        close(gradient, self.gradient.double().sum((0, 1)))

    def test_gelu_forwards_and_its_gradient_backwards(self):
        plain = self.inputs.double() @ self.weight.double().t()
        result, _, before, _ = multiply(self.weight, True, self.inputs, False, gelu=True)
        close(before, plain)
        close(result, STATED["gelu"](plain))
        at = draw(2, 5, 16, seed=4).double().requires_grad_()
        (slope,) = torch.autograd.grad(STATED["gelu"](at).sum(), at)
        found = multiply(self.weight, False, self.gradient, False, gelu=True, gelu_in=at.detach().float(), grad=True)[0]
        close(found, (self.gradient.double() @ self.weight.double()) * slope, 1e-5)

    def test_a_product_is_added_to_what_is_there(self):
        held = draw(24, 16, seed=5)
        plain = self.gradient.double().reshape(-1, 24).t() @ self.inputs.double().reshape(-1, 16)
        before = held.clone().double()
        result = multiply(self.inputs, False, self.gradient, True, held, accumulate=True)[0]
        assert result is held
        close(held, before + plain)
        multiply(self.inputs, False, self.gradient, True, held, accumulate=True, alpha=0.5, beta=2.0)
        close(held, 2 * (before + plain) + plain / 2)

    def test_the_output_has_the_type_asked_for(self):
        result = multiply(self.weight, True, self.inputs, False, output_dtype=DType.kBFloat16)[0]
        assert result.dtype == torch.bfloat16

    def test_user_buffers_are_refused_by_name(self):
        with pytest.raises(NotImplementedError, match="--tp-comm-overlap"):
            multiply(self.weight, True, self.inputs, False, comm_overlap=object())


class TestGroupedProducts:
    splits = (3, 0, 5)

    def grouped(self, a, transposed_a, b, transposed_b, outputs, biases, grad=False, single=False, accumulate=False):
        return gemm.te_general_grouped_gemm(
            a, transposed_a, b, transposed_b, outputs, DType.kFloat32, self.splits, biases, DType.kBFloat16, single, None, grad,
            None, 0, accumulate, False, 0,
        )  # fmt: skip

    def test_every_group_is_multiplied_with_its_own_weight(self):
        weights = [draw(24, 16, seed=seed) for seed in range(3)]
        parts = torch.split(draw(8, 16, seed=9), self.splits)
        biases = [draw(24, seed=10 + index) for index in range(3)]
        output = torch.zeros(8, 24)
        self.grouped(weights, True, parts, False, [output], biases, single=True)
        expected = [
            part.double() @ weight.double().t() + bias.double()
            for part, weight, bias in zip(parts, weights, biases, strict=True)
        ]
        close(output, torch.cat(expected))

    def test_every_weight_gets_its_gradient_and_every_bias(self):
        parts = torch.split(draw(8, 16, seed=9), self.splits)
        gradients = torch.split(draw(8, 24, seed=8), self.splits)
        outputs = [torch.zeros(24, 16) for _ in self.splits]
        biases = self.grouped(parts, False, gradients, True, outputs, [torch.zeros(24)] * 3, grad=True)
        for output, bias, part, gradient in zip(outputs, biases, parts, gradients, strict=True):
            assert np.allclose(output.numpy(), (gradient.double().t() @ part.double()).numpy(), atol=1e-5)
            assert np.allclose(bias.numpy(), gradient.double().sum(0).numpy(), atol=1e-5)


def test_rows_are_padded_with_zeros_and_unpadded():
    groups, padded = [3, 0, 5], [16, 0, 16]
    source, held = draw(8, 4), torch.full((32, 4), 7.0)
    rows.fused_multi_row_padding(source, held, groups, padded)
    assert torch.equal(held[:3], source[:3])
    assert torch.equal(held[16:21], source[3:])
    assert not held[3:16].any()
    assert not held[21:].any()
    back = torch.zeros(8, 4)
    rows.fused_multi_row_unpadding(held, back, padded, groups)
    assert torch.equal(back, source)
