import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_nca.errors import NCAError
from megatron_nca.training import reinit

NORMAL = functools.partial(torch.nn.init.normal_, mean=0.0, std=0.02)
SCALED = functools.partial(torch.nn.init.normal_, mean=0.0, std=0.005)


def config(**settings):
    return SimpleNamespace(
        init_method=NORMAL, output_layer_init_method=SCALED, embedding_init_method=NORMAL, **settings
    )  # fmt: skip


def parameter(*shape, partition_dim=None, stride=1):
    weight: Any = torch.nn.Parameter(torch.zeros(*shape))
    weight.tensor_model_parallel = partition_dim is not None
    weight.partition_dim = -1 if partition_dim is None else partition_dim
    weight.partition_stride = stride
    return weight


class Holder(torch.nn.Module):
    def __init__(self, **weights):
        super().__init__()
        for name, weight in weights.items():
            setattr(self, name, weight)


class Model(torch.nn.Module):
    """As much of a GPTModel as is looked at; ``size`` ranks of tensor parallelism share each weight."""

    def __init__(self, size=1, tied=True, first=True, last=True, layers=(1, 2), **settings):
        super().__init__()
        self.config = config(**settings)
        self.share_embeddings_and_output_weights = tied
        if first:
            self.embedding = Holder(config=self.config)
            self.embedding.word_embeddings = Holder(weight=parameter(4096 // size, 8, partition_dim=0))
            self.embedding.position_embeddings = Holder(weight=parameter(16, 8))
        if last:
            own = not tied or not first
            self.output_layer = Holder(weight=parameter(4096 // size, 8, partition_dim=0) if own else None)
        self.layers = torch.nn.ModuleList(self.layer(number, size) for number in layers)
        self.final_layernorm = Holder(weight=parameter(8), bias=parameter(8))

    def layer(self, number, size):
        layer = Holder(config=self.config, layer_number=number)
        layer.input_layernorm = Holder(weight=parameter(8), bias=parameter(8))
        layer.self_attention = Holder(
            linear_qkv=Holder(weight=parameter(24 // size, 8, partition_dim=0), layer_norm_weight=parameter(8)),
            linear_proj=Holder(weight=parameter(8, 8 // size, partition_dim=1), bias=parameter(8)),
        )
        layer.mlp = Holder(
            linear_fc1=Holder(weight=parameter(32 // size, 8, partition_dim=0, stride=2)),
            linear_fc2=Holder(weight=parameter(8, 16 // size, partition_dim=1)),
        )
        return layer


def drawn(model, parts=("embeddings",), seed=5, rank=0, size=1, monkeypatch=None):
    if monkeypatch:
        monkeypatch.setattr(reinit, "_tensor_parallel", lambda: (rank, size))
    reinit.reinitialize([model], parts, seed)
    return {name: weight.detach() for name, weight in model.named_parameters()}


EMBEDDING = "embedding.word_embeddings.weight"


def test_embeddings_are_drawn_by_megatrons_init_method():
    weight = drawn(Model())[EMBEDDING]
    assert weight.std() == pytest.approx(0.02, rel=0.02)
    assert weight.unique().numel() > 30_000


def test_nothing_but_what_is_asked_for_changes():
    names = {name for name, weight in drawn(Model(tied=False)).items() if weight.any()}
    assert names == {EMBEDDING, "output_layer.weight"}


def test_untied_embeddings_are_drawn_apart():
    weights = drawn(Model(tied=False))
    assert not torch.equal(weights[EMBEDDING], weights["output_layer.weight"])


def test_both_ends_of_a_tied_pipeline_agree():
    first, last = Model(last=False, layers=(1,)), Model(first=False, layers=(2,))
    assert torch.equal(drawn(first)[EMBEDDING], drawn(last)["output_layer.weight"])


@pytest.mark.parametrize("size", [2, 4])
def test_tensor_parallel_ranks_hold_slices_of_one_weight(size, monkeypatch):
    parts = reinit.PARTS
    whole = drawn(Model(), parts)
    shards = [drawn(Model(size=size), parts, rank=rank, size=size, monkeypatch=monkeypatch) for rank in range(size)]
    for name, weight in whole.items():
        pieces = [shard[name] for shard in shards]
        if name == "layers.0.mlp.linear_fc1.weight":
            # Gate and up are cut separately, so a rank holds a slice of each.
            halves = [torch.chunk(piece, 2) for piece in pieces]
            pieces = [half[side] for side in (0, 1) for half in halves]
        if pieces[0].shape == weight.shape:
            assert all(torch.equal(piece, weight) for piece in pieces)
        elif "linear_fc1" not in name or name == "layers.0.mlp.linear_fc1.weight":
            dim = next(dim for dim in (0, 1) if pieces[0].shape[dim] != weight.shape[dim])
            assert torch.equal(torch.cat(pieces, dim=dim), weight)


def test_layers_are_named_by_their_place_in_the_whole_model():
    whole, stage = Model(layers=(1, 2)), Model(first=False, layers=(2,))
    ours = drawn(stage, ("attention", "mlp"))
    for name in ("self_attention.linear_qkv.weight", "mlp.linear_fc2.weight"):
        assert torch.equal(ours[f"layers.0.{name}"], drawn(whole, ("attention", "mlp"))[f"layers.1.{name}"])
        assert not torch.equal(ours[f"layers.0.{name}"], drawn(whole, ("attention", "mlp"))[f"layers.0.{name}"])


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("attention", {"linear_qkv.weight", "linear_proj.weight"}),
        ("mlp", {"linear_fc1.weight", "linear_fc2.weight"}),
        ("norms", {"layer_norm_weight", "layernorm.weight"}),
    ],
)
def test_each_part_is_its_own(part, expected):
    names = [name for name, weight in drawn(Model(), (part,)).items() if weight.any()]
    assert names
    assert all(any(name.endswith(end) for end in expected) for name in names)
    assert all(any(name.endswith(end) for name in names) for end in expected)


def test_outputs_of_blocks_have_the_scaled_deviation():
    weights = drawn(Model(layers=range(1, 200)), ("mlp",))
    deep = torch.cat([weight.flatten() for name, weight in weights.items() if "linear_fc2" in name])
    assert deep.std() == pytest.approx(0.005, rel=0.05)


def test_norms_centred_at_zero_become_zero():
    model = Model(layernorm_zero_centered_gamma=True)
    model.final_layernorm.weight.data.fill_(3)
    assert not drawn(model, ("norms",))["final_layernorm.weight"].any()


def test_an_init_method_that_looks_at_the_shape_sees_the_whole(monkeypatch):
    whole, shard = Model(), Model(size=2)
    for model in (whole, shard):
        model.config.embedding_init_method = torch.nn.init.xavier_uniform_
    expected = drawn(whole)[EMBEDDING]
    assert expected.abs().max() == pytest.approx((6 / (4096 + 8)) ** 0.5, rel=1e-3)
    assert torch.equal(drawn(shard, rank=1, size=2, monkeypatch=monkeypatch)[EMBEDDING], expected[2048:])


def test_padding_the_vocabulary_does_not_move_a_row(monkeypatch):
    padded = Model()
    padded.embedding.word_embeddings.weight = parameter(4500, 8, partition_dim=0)
    assert torch.equal(drawn(padded)[EMBEDDING][:4096], drawn(Model())[EMBEDDING])


def test_the_runs_own_random_numbers_are_left_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    drawn(Model())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_all_experts_in_one_parameter_are_refused_by_name():
    model = Model()
    model.layers[0].mlp.experts = Holder(weight1=parameter(8, 8))
    with pytest.raises(NCAError, match=r"mixture of experts: layers\.1\.mlp\.experts\.weight1"):
        reinit.check([model], ("mlp",))
    reinit.check([model], ("embeddings",))


def with_experts(indices, grouped=False, size=1):
    """A layer whose experts of these numbers lie on this rank, ``size`` ranks sharing each."""
    model = Model(layers=(1,))
    shapes = {"linear_fc1": (16 // size, 8), "linear_fc2": (8, 8 // size)}
    if grouped:
        experts = Holder(
            **{
                name: Holder(**{f"weight{place}": parameter(*shape) for place in range(len(indices))})
                for name, shape in shapes.items()
            }
        )
    else:
        one = [Holder(**{name: Holder(weight=parameter(*shape)) for name, shape in shapes.items()}) for _ in indices]
        experts = Holder(local_experts=torch.nn.ModuleList(one))
    model.layers[0].mlp = Holder(experts=experts, router=Holder(weight=parameter(4, 8)), local_expert_indices=indices)
    return model


def expert_weights(model, grouped=False):
    """(fc1, fc2) of each of a rank's experts."""
    weights = drawn(model, ("mlp",))
    key = "layers.0.mlp.experts.{}.weight{}" if grouped else "layers.0.mlp.experts.local_experts.{1}.{0}.weight"
    places = range(len(model.layers[0].mlp.local_expert_indices))
    return [[weights[key.format(name, place)] for name in ("linear_fc1", "linear_fc2")] for place in places]


@pytest.mark.parametrize("grouped", [False, True])
def test_an_expert_is_the_same_on_whatever_rank_and_in_whatever_form(grouped):
    whole = expert_weights(with_experts([0, 1, 2, 3]))
    halves = [expert_weights(with_experts(indices, grouped), grouped) for indices in ([0, 1], [2, 3])]
    for ours, expected in zip(halves[0] + halves[1], whole, strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, expected, strict=True))
    assert not torch.equal(whole[0][0], whole[1][0])
    assert whole[0][0].std() == pytest.approx(0.02, rel=0.3)
    assert whole[0][1].std() == pytest.approx(0.005, rel=0.3)


def test_ranks_that_share_an_expert_hold_slices_of_it(monkeypatch):
    whole = expert_weights(with_experts([0, 1]))
    shards = []
    for rank in range(2):
        monkeypatch.setattr(reinit, "_expert_tensor_parallel", lambda rank=rank: (rank, 2))
        shards.append(expert_weights(with_experts([0, 1], size=2)))
    for place, (fc1, fc2) in enumerate(whole):
        assert torch.equal(torch.cat([shard[place][0] for shard in shards], dim=0), fc1)
        assert torch.equal(torch.cat([shard[place][1] for shard in shards], dim=1), fc2)


def hybrid():
    """A state-space layer, a linear-attention layer without an mlp and a final norm, as in a HybridModel."""
    model = Model(layers=())
    del model.final_layernorm
    model.final_norm = Holder(weight=parameter(8))
    mixer = Holder(
        in_proj=Holder(weight=parameter(16, 8), layer_norm_weight=parameter(8)),
        norm=Holder(weight=parameter(8)),
        A_log=parameter(4),
        dt_bias=parameter(4),
    )
    space = Holder(config=model.config, layer_number=1, mixer=mixer)
    linear = Holder(
        in_proj=Holder(weight=parameter(16, 8)),
        out_norm=Holder(weight=parameter(8)),
        conv1d=Holder(weight=parameter(64, 1, 4)),
        A_log=parameter(64),
        dt_bias=parameter(64),
        A_init_range=(1, 16),
    )
    attention = Holder(config=model.config, layer_number=2, self_attention=linear, mlp=torch.nn.Identity())
    model.layers = torch.nn.ModuleList([space, attention])
    return model


def test_norms_of_a_hybrid_model_are_found():
    names = {name for name, weight in drawn(hybrid(), ("norms",)).items() if (weight == 1).all()}
    assert names == {
        *("final_norm.weight", "layers.0.mixer.norm.weight", "layers.0.mixer.in_proj.layer_norm_weight"),
        "layers.1.self_attention.out_norm.weight",
    }


def test_linear_attention_has_its_own_initialisers():
    weights = drawn(hybrid(), ("attention",))
    decays = weights["layers.1.self_attention.A_log"].exp()
    assert 1 <= decays.min() < 3 < 13 < decays.max() <= 16
    assert torch.equal(weights["layers.1.self_attention.dt_bias"], torch.ones(64))
    kernel = weights["layers.1.self_attention.conv1d.weight"]
    assert kernel.abs().max() == pytest.approx(0.5, rel=0.05)
    assert kernel.std() == pytest.approx(0.5 / 3**0.5, rel=0.1)


def test_a_state_space_mixer_is_not_attention():
    assert not any(weight.any() for name, weight in drawn(hybrid(), ("attention",)).items() if "mixer" in name)


def test_a_prediction_layer_is_drawn_apart_from_the_layer_of_its_number():
    model = Model(layers=(1,))
    inside = model.layer(1, 1)
    model.mtp = torch.nn.ModuleList([Holder(layer_number=1, config=model.config, eh_proj=Holder(), inside=inside)])
    model.mtp[0].enorm = Holder(weight=parameter(8))
    weights = drawn(model, ("mlp", "norms"))
    assert weights["mtp.0.inside.mlp.linear_fc1.weight"].std() == pytest.approx(0.02, rel=0.2)
    assert not torch.equal(weights["mtp.0.inside.mlp.linear_fc1.weight"], weights["layers.0.mlp.linear_fc1.weight"])
    assert torch.equal(weights["mtp.0.enorm.weight"], torch.ones(8))


def test_a_part_that_found_nothing_is_counted_as_none():
    model = hybrid()
    assert reinit.count([model], reinit.PARTS) == {"embeddings": 1, "attention": 4, "mlp": 0, "norms": 4}
