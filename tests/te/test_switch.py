"""The switch on Transformer Engine's own modules, tensors and optimizers, in a model of Megatron-Core that is trained here."""

import copy

import pytest
import torch

from megatron_nca.rehearsal.fp8_training import Casts, forget_transformer_engine, one_rank, scaling_states
from megatron_nca.training import fp8, optimizer, reinit
from tests.te.conftest import needs_transformer_engine
from tests.te.training import Training

pytestmark = [needs_transformer_engine, pytest.mark.filterwarnings("ignore")]

LAYERS = ("attention", "mlp", "norms", "embeddings")
SEED = 7

DELAYED = {
    "bf16 weights": {},
    "FP8 weights": {"fp8_param": True},
    "fused MLP": {"fused": True},
    "experts": {
        "num_moe_experts": 2,
        "moe_grouped_gemm": True,
        "moe_router_topk": 1,
        "moe_router_pre_softmax": True,
        "moe_ffn_hidden_size": 128,
    },
}


@pytest.fixture(autouse=True)
def ranks():
    with one_rank():
        yield


@pytest.fixture(params=DELAYED)
def delayed(request):
    """A model that delayed scaling has scaled for some steps."""
    training = Training(**DELAYED[request.param])
    training.train(4)
    return training


def switch(training, parts=("embeddings",)):
    """What the transition does, in its order."""
    model = [training.model]
    reinit.reinitialize(model, parts, SEED, optimizer.MasterWeights(training.optimizer).take)
    optimizer.reset_state(training.optimizer)
    return fp8.clear_histories(model)


class TestHistories:
    def test_every_one_is_found_in_the_model_s_modules(self, delayed):
        every = scaling_states()
        assert len(every) >= 8 * delayed.config.num_layers
        assert all(history.any() for history, _ in every)
        assert switch(delayed) == fp8.ClearedHistories(histories=len(every))

    def test_they_become_those_of_a_model_built_anew_in_place_and_scales_stay(self, delayed):
        before = [(history, history.data_ptr(), scale.clone(), scale.data_ptr()) for history, scale in scaling_states()]
        switch(delayed)
        assert len(scaling_states()) == len(before)
        for (history, scale), (old, place, value, scale_place) in zip(scaling_states(), before, strict=True):
            assert history is old
            assert (history.data_ptr(), scale.data_ptr()) == (place, scale_place)
            assert not history.any()
            assert torch.equal(scale, value)

    def test_nothing_of_nca_scales_the_second_step_of_text(self, delayed):
        switch(delayed)
        delayed.train()
        seen = [history[1:].amax(0) for history, _ in scaling_states()]
        for (_, scale), amax in zip(scaling_states(), seen, strict=True):
            for limit in (448.0, 57344.0):
                own = torch.where(amax > 0, limit / amax, scale)
                if torch.allclose(scale, own, rtol=1e-6):
                    break
            else:
                pytest.fail(f"scales {scale.tolist()} do not follow from the magnitudes {amax.tolist()} of one step")

    def test_without_the_switch_they_are_full_of_nca(self, delayed):
        kept = [history[2:].clone() for history, _ in scaling_states()]
        delayed.train()
        assert all(torch.equal(history[1:-1], old) for (history, _), old in zip(scaling_states(), kept, strict=True))

    def test_a_resumed_model_has_as_many(self, monkeypatch, delayed):
        monkeypatch.setenv("NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE", "1")
        expected = len(scaling_states())
        if any("_fused_impl" in vars(module) for module in delayed.model.modules()):
            pytest.skip("Megatron-Core's fused MLP makes its operations at the first step, so a resume has none before it")
        saved = copy.deepcopy({k: v for k, v in delayed.model.module.state_dict().items() if "_extra_state" in k})
        forget_transformer_engine()
        resumed = Training(recipe="delayed", **self.settings_of(delayed))
        resumed.model.module.load_state_dict(saved, strict=False)
        assert not scaling_states(), "the lists are empty until a step has run"
        assert switch(resumed) == fp8.ClearedHistories(histories=expected)

    def settings_of(self, training):
        wanted = (
            "fp8_param",
            "num_moe_experts",
            "moe_grouped_gemm",
            "moe_router_topk",
            "moe_router_pre_softmax",
            "moe_ffn_hidden_size",
        )
        return {name: getattr(training.config, name) for name in wanted if getattr(training.config, name, None)}


@pytest.mark.parametrize("recipe", ["tensorwise", "blockwise", "mxfp8"])
def test_other_recipes_have_nothing_to_clear(recipe, request):
    if recipe == "mxfp8":
        request.getfixturevalue("blackwell")
    training = Training(recipe)
    training.train(2)
    assert str(switch(training)) == "no FP8 history to clear"


class TestTheFirstStepOfText:
    @pytest.fixture
    def around(self):
        """Casts of the step before the switch, and of the first one of text."""
        training, before, text = Training(), Casts(), Casts()
        training.train(6)
        with before:
            training.train()
        switch(training)
        training.stride = 5

        def train(change=lambda: None):
            change()
            with text:
                training.train()
            return before, text

        return train

    @pytest.mark.parametrize("gradients", [True, False])
    def test_flushes_no_more_than_the_step_before(self, around, gradients):
        before, text = around()
        assert text.flushed(gradients) <= before.flushed(gradients) + 0.01

    def test_saturates_next_to_nothing(self, around):
        assert around()[1].saturated() < 1e-3

    def test_would_flush_gradients_at_scales_of_one(self, around):
        def set_to_one():
            for _, scale in scaling_states():
                scale.fill_(1)

        before, text = around(set_to_one)
        assert before.flushed(gradients=True) < 0.001
        assert text.flushed(gradients=True) > 0.2


QUANTIZED = ("delayed", "tensorwise", "blockwise", "mxfp8")


class TestQuantizedWeights:
    @pytest.fixture(params=QUANTIZED)
    def training(self, request):
        if request.param == "mxfp8":
            request.getfixturevalue("blackwell")
        training = Training(request.param, fp8_param=True)
        training.train(3)
        return training

    def drawn(self, training):
        """(parameter, the weight as it is drawn) of every part."""
        return [(target.parameter, reinit._draw(target, SEED)) for target in reinit._targets([training.model], LAYERS)]

    def test_masters_take_the_weight_itself_and_parameters_its_rounding(self, training):
        switch(training, LAYERS)
        kinds = set()
        for parameter, weight in self.drawn(training):
            assert torch.equal(parameter.main_param.reshape(-1), weight.reshape(-1))
            quantized = type(parameter).__name__ if hasattr(parameter, "_quantizer") else None
            kinds.add(quantized)
            held = parameter.dequantize() if quantized else parameter
            error = (held.float() - weight).norm() / weight.norm().clamp(min=1e-30)
            assert error < (0.06 if quantized else 2**-8)
        assert len(kinds) == 2, "some weights are quantized, others are not"

    def test_they_stay_where_they_were(self, training):
        def places():
            return [
                held.data_ptr()
                for target in reinit._targets([training.model], LAYERS)
                for held in (getattr(target.parameter, "_data", None), getattr(target.parameter, "_rowwise_data", None))
                if held is not None
            ]

        before = places()
        assert before
        switch(training, LAYERS)
        assert places() == before

    def test_training_goes_on_as_with_plain_weights(self, training):
        switch(training, LAYERS)
        losses = training.train(4)
        forget_transformer_engine()
        plain = Training(None)
        plain.train(3)
        switch(plain, LAYERS)
        assert losses == pytest.approx(plain.train(4), rel=0.02)


ADAMS = {
    "fp32": {},
    "fp16 moments": {"exp_avg_dtype": torch.float16, "exp_avg_sq_dtype": torch.float16},
    "FP8 moments": {"exp_avg_dtype": torch.uint8, "exp_avg_sq_dtype": torch.uint8},
    "bf16 moments": {"exp_avg_dtype": torch.bfloat16, "exp_avg_sq_dtype": torch.bfloat16},
    "fp16 masters": {"master_weight_dtype": torch.float16},
    "remainders": {"store_param_remainders": True},
    "capturable": {"capturable": True},
}


class TestFusedAdam:
    """Transformer Engine's optimizer with its masters in the state, in every form."""

    @pytest.fixture(params=ADAMS)
    def adam(self, request):
        from transformer_engine.pytorch.optimizers import FusedAdam

        generator = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(size, generator=generator).bfloat16()) for size in (64, 50)]
        adam = FusedAdam(weights, lr=1e-2, master_weights=True, **ADAMS[request.param])
        self.step(adam, 3)
        return adam

    def step(self, adam, steps, zero=False):
        generator = torch.Generator().manual_seed(1)
        for _ in range(steps):
            for weight in self.weights(adam):
                drawn = torch.randn(weight.shape, generator=generator)
                weight.grad = (torch.zeros_like(drawn) if zero else drawn).to(weight.dtype)
            adam.step()

    def weights(self, adam):
        return [weight for group in adam.param_groups for weight in group["params"]]

    def megatron(self, adam):
        """What Megatron's distributed optimizer shows of it, each parameter being its own shard."""
        from types import SimpleNamespace

        weights = self.weights(adam)
        held = {id(weight): SimpleNamespace(start=0, end=weight.numel()) for weight in weights}
        return SimpleNamespace(
            optimizer=adam,
            model_float16_groups=[weights],
            shard_float16_groups=[weights],
            model_param_gbuf_map=dict.fromkeys(weights, 0),
            _get_model_param_range_map=lambda weight: {"param": held[id(weight)]},
        )

    def tensors(self, adam):
        """Every tensor that a captured step would read or write, with its place."""
        found = {}
        for number, weight in enumerate(self.weights(adam)):
            for name, value in adam.state[weight].items():
                found[number, name] = value
                for inner in ("_data", "_scale_inv"):
                    if isinstance(getattr(value, inner, None), torch.Tensor):
                        found[number, name, inner] = getattr(value, inner)
            for name, scale in adam._scales.get(weight, {}).items():
                found[number, name, "scale"] = scale
        for number, group in enumerate(adam.param_groups):
            found.update({(number, key): value for key, value in group.items() if isinstance(value, torch.Tensor)})
        return {name: (id(value), value.data_ptr()) for name, value in found.items()}

    def test_a_reset_writes_into_the_tensors_that_are_there(self, adam):
        before = self.tensors(adam)
        optimizer.reset_state(self.megatron(adam))
        assert self.tensors(adam) == before

    def test_a_reset_zeroes_moments_and_step_and_keeps_masters(self, adam):
        masters = [adam.get_unscaled_state(weight, "master_param").clone() for weight in self.weights(adam)]
        optimizer.reset_state(self.megatron(adam))
        for weight, master in zip(self.weights(adam), masters, strict=True):
            for name in ("exp_avg", "exp_avg_sq"):
                assert not adam.get_unscaled_state(weight, name).any()
            assert torch.equal(adam.get_unscaled_state(weight, "master_param"), master)
        assert all(float(group["step"]) == 0 for group in adam.param_groups)

    def test_a_new_weight_goes_into_the_master_that_is_there(self, adam):
        before = self.tensors(adam)
        masters = optimizer.MasterWeights(self.megatron(adam))
        for weight in self.weights(adam):
            drawn = torch.randn(weight.shape)
            with torch.no_grad():
                weight.copy_(drawn)
            masters.take(weight, drawn)
            held = adam.get_unscaled_state(weight, "master_param")
            if held.dtype == torch.int16:
                high = weight.detach().view(torch.int16).int() - (held < 0).int()
                held = ((high << 16) | (held.int() & 0xFFFF)).view(torch.float32)
            tolerance = 1e-3 if adam.master_weight_dtype == torch.float16 else 0.0
            torch.testing.assert_close(held, drawn, rtol=tolerance, atol=tolerance)
        assert self.tensors(adam) == before

    def test_after_the_switch_it_steps_like_a_new_one(self, adam):
        from transformer_engine.pytorch.optimizers import FusedAdam

        megatron = self.megatron(adam)
        masters = optimizer.MasterWeights(megatron)
        for weight in self.weights(adam):
            drawn = weight.detach().float().mul(0.5).bfloat16().float()
            with torch.no_grad():
                weight.copy_(drawn)
            masters.take(weight, drawn)
        optimizer.reset_state(megatron)
        twins = [torch.nn.Parameter(weight.detach().clone()) for weight in self.weights(adam)]
        form = {
            name: getattr(adam, name) for name in ("exp_avg_dtype", "exp_avg_sq_dtype", "master_weight_dtype", "capturable")
        }
        new = FusedAdam(twins, lr=1e-2, master_weights=True, store_param_remainders=adam.store_param_remainders, **form)
        for stepper in (adam, new):
            self.step(stepper, 3)
        for weight, twin in zip(self.weights(adam), twins, strict=True):
            torch.testing.assert_close(weight, twin, rtol=2**-7, atol=1e-4)


def test_fp8_moments_survive_the_first_steps_of_text():
    moments = {"use_precision_aware_optimizer": True, "exp_avg_dtype": torch.uint8, "exp_avg_sq_dtype": torch.uint8}
    training = Training(optimizer=moments)
    training.train(3)
    switch(training, LAYERS)
    training.stride = 5
    losses = training.train(4)
    assert all(torch.isfinite(parameter.float()).all() for parameter in training.model.parameters())
    assert losses[-1] < losses[0]
