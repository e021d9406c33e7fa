import functools
from types import SimpleNamespace

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
    weight = torch.nn.Parameter(torch.zeros(*shape))
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


def test_experts_are_refused_by_name():
    model = Model()
    model.layers[0].mlp.experts = Holder(weight=parameter(8, 8))
    with pytest.raises(NCAError, match="mixture of experts"):
        reinit.check([model], ("mlp",))
    reinit.check([model], ("embeddings",))


def test_shards_of_fsdp_are_refused_before_training():
    model = Model()
    model.embedding.word_embeddings.weight._megatron_fsdp_model = True
    with pytest.raises(NCAError, match="sharded by FSDP"):
        reinit.check([model], ("embeddings",))
