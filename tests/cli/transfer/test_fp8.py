"""FP8 scaling states and quantized weights in a transfer, of packages that are not installed where it is done."""

import io
import pickle
import sys
import types

import pytest
import torch

from tests.cli.transfer.by_hand import piece_of, read_torch, stacked, trained, write_dist, write_torch


@pytest.fixture
def foreign():
    """A package that is there when the checkpoint is written and read, and not when it is transferred."""
    import enum

    module = types.ModuleType("foreign_engine")

    class Format(enum.Enum):
        HYBRID = "hybrid"

    class Recipe:
        pass

    for made in (Format, Recipe):
        made.__module__, made.__qualname__ = "foreign_engine", made.__name__
        setattr(module, made.__name__, made)
    sys.modules["foreign_engine"] = module
    yield module
    sys.modules.pop("foreign_engine", None)


def scaling(foreign):
    recipe = foreign.Recipe()
    recipe.margin, recipe.format = 2, foreign.Format.HYBRID
    return {"recipe": recipe, "scale_fwd": torch.tensor([8.0]), "amax_history_fwd": torch.rand(4, 1), "extra": {"n": 3}}


@pytest.mark.parametrize("kind", ["bytes", "file", "operation"])
@pytest.mark.parametrize("checkpoint_format", ["torch", "torch_dist"])
def test_fp8_histories_forget_nca_and_scales_stay(load, transfer, foreign, kind, checkpoint_format):
    key = "decoder.layers.0.mlp.linear_fc1._extra_state"
    values = scaling(foreign)
    if kind == "operation":
        # As an operation of te.ops keeps it.
        values = {"forward": values, "backward": {"recipe": values["recipe"]}}
    if kind != "file":
        state = torch.frombuffer(bytearray(pickle.dumps(values)), dtype=torch.uint8)
    else:
        state = io.BytesIO()
        torch.save(values, state)
    options = {"mode": foreign.Format.HYBRID}
    if checkpoint_format == "torch":
        write_torch(load, {"mp_rank_00": {"model": {**trained(), key: state, f"{key}2": None}}}, **options)
    else:
        key = f"{key}/shard_0_1"
        write_dist(load, {**stacked(trained()), key: [state]}, **options)
    sys.modules.pop("foreign_engine")
    start, said = transfer()
    sys.modules["foreign_engine"] = foreign
    if checkpoint_format == "torch":
        whole = read_torch(start)
        found, args = whole["model"][key], whole["args"]
    else:
        found = torch.load(io.BytesIO(piece_of(start, key)), weights_only=False)[0]
        args = torch.load(start / "release" / "common.pt", weights_only=False)["args"]
    if kind != "file":
        found = pickle.loads(bytes(found.numpy()))
    else:
        found.seek(0)
        found = torch.load(found, weights_only=False)
    found = found["forward"] if kind == "operation" else found
    assert not found["amax_history_fwd"].any()
    assert found["scale_fwd"].tolist() == [8]
    assert found["extra"] == {"n": 3}
    assert type(found["recipe"]) is foreign.Recipe
    assert (found["recipe"].margin, found["recipe"].format) == (2, foreign.Format.HYBRID)
    assert args.mode is foreign.Format.HYBRID
    assert said["scaling_states"] == 1


@pytest.fixture
def quantized(foreign):
    """A weight as Transformer Engine pickles one that it keeps in FP8: by a method of its class."""

    class Float8Tensor:
        def __init__(self, data=None):
            self.data = data

        @classmethod
        def _make_in_reduce_ex(cls, data):
            return cls(data)

        def __reduce_ex__(self, protocol):
            return type(self)._make_in_reduce_ex, (self.data,)

    Float8Tensor.__module__, Float8Tensor.__qualname__ = "foreign_engine", "Float8Tensor"
    foreign.Float8Tensor = Float8Tensor
    return Float8Tensor(torch.arange(8, dtype=torch.uint8))


QUANTIZED_KEY = "decoder.layers.0.mlp.linear_fc1.weight"


def test_a_quantized_weight_that_is_kept_stays_as_it_is(load, transfer, foreign, quantized):
    write_torch(load, {"mp_rank_00": {"model": {**trained(), QUANTIZED_KEY: quantized}}})
    sys.modules.pop("foreign_engine")
    start, _ = transfer()
    sys.modules["foreign_engine"] = foreign
    found = read_torch(start)["model"][QUANTIZED_KEY]
    assert type(found) is foreign.Float8Tensor
    assert torch.equal(found.data, quantized.data)


def test_a_quantized_weight_that_should_be_drawn_anew_is_refused(load, fail, tmp_path, foreign, quantized):
    write_torch(load, {"mp_rank_00": {"model": {**trained(), QUANTIZED_KEY: quantized}}})
    sys.modules.pop("foreign_engine")
    said = fail("transfer", "--load", load, "--save", tmp_path / "start", "--reinit", "embeddings,mlp")
    assert f"{QUANTIZED_KEY}: is kept quantized" in said
    assert "--ckpt-format torch_dist" in said
