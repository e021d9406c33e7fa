"""What `megatron-nca transfer` refuses; it then leaves nothing behind."""

import pytest
import torch

from tests.cli.transfer.by_hand import stacked, trained, write_dist, write_torch


def without(name):
    return {key: value for key, value in trained().items() if name not in key}


def spoil(load, how):
    """Write a checkpoint with something wrong."""
    good, two = {"mp_rank_00": {"model": trained()}}, {"tensor_model_parallel_size": 2}
    mixture = {**trained(), "decoder.layers.0.mlp.experts.linear_fc1.weight0": torch.rand(2, 2)}
    ways = {
        "empty": lambda: load.mkdir(),
        "good": lambda: write_torch(load, good),
        "two ranks": lambda: write_torch(load, {f"mp_rank_0{rank}": good["mp_rank_00"] for rank in (0, 1)}, **two),
        "one of two": lambda: write_torch(load, good, **two),
        "embedding": lambda: write_torch(load, {"mp_rank_00": {"model": without("embedding.")}}),
        "output": lambda: write_torch(load, good, untie_embeddings_and_output_weights=True),
        "experts": lambda: write_torch(load, {"mp_rank_00": {"model": mixture}}),
        "prediction": lambda: write_torch(load, {"mp_rank_00": {"model": {**trained(), "mtp.x": torch.rand(2)}}}),
        "dist embedding": lambda: write_dist(load, stacked(without("embedding."))),
    }
    if how in ways:
        ways[how]()
        return
    write_dist(load, stacked(trained())) if how.startswith("dist") else write_torch(load, good)
    folder = load / "iter_0000007"
    breaks = {
        "tracker": lambda: (load / "latest_checkpointed_iteration.txt").write_text("soon"),
        "iteration": lambda: (load / "latest_checkpointed_iteration.txt").write_text("9"),
        "damaged": lambda: (folder / "mp_rank_00" / "model_optim_rng.pt").write_bytes(b"PK"),
        "stranger": lambda: torch.save({"model": {}}, folder / "mp_rank_00" / "model_optim_rng.pt"),
        "dist format": lambda: (folder / "metadata.json").unlink(),
        "dist zarr": lambda: (folder / "metadata.json").write_text('{"sharded_backend": "zarr"}'),
        "dist file": lambda: next(folder.glob("*.distcp")).unlink(),
        "dist short": lambda: next(folder.glob("*.distcp")).write_bytes(b""),
        "dist metadata": lambda: (folder / ".metadata").write_bytes(b"x"),
        "dist stranger": lambda: torch.save({"iteration": 7}, folder / "common.pt"),
    }
    breaks[how]()


@pytest.mark.parametrize(
    ("how", "flags", "message"),
    [
        ("empty", (), "latest_checkpointed_iteration.txt is missing"),
        ("tracker", (), "says 'soon'"),
        ("iteration", (), "iter_0000009 is not there; found iter_0000007"),
        ("good", ("--ckpt-step", "3"), "iter_0000003 is not there"),
        ("good", ("--reinit", "embedding"), "--reinit embedding: 'embedding' must be one of embeddings, attention, mlp, norms"),
        ("good", ("--reinit", "none", "--padded-vocab-size", "64"), "needs new embeddings"),
        ("good", ("--padded-vocab-size", "0"), "must be at least 1"),
        ("good", ("--init-method-std", "-1"), "must be a finite number above 0"),
        ("two ranks", ("--padded-vocab-size", "4097"), "no multiple of the checkpoint's tensor-parallel size 2; use 4098"),
        ("one of two", (), "tensor-parallel rank 1, pipeline stage 0 is missing"),
        ("embedding", (), "has no embedding.word_embeddings.weight"),
        ("dist embedding", (), "has no embedding.word_embeddings.weight"),
        ("output", (), "has no output_layer.weight"),
        ("experts", ("--reinit", "mlp"), "leave mlp out of the parts"),
        ("prediction", ("--reinit", "norms"), "multi-token prediction"),
        ("damaged", (), "damaged or not complete"),
        ("stranger", (), "holds no arguments of Megatron-LM"),
        ("dist stranger", (), "holds no arguments of Megatron-LM"),
        ("dist format", (), "torch_dcp or fsdp_dtensor; transfer knows torch and torch_dist"),
        ("dist zarr", (), "is zarr; transfer knows torch and torch_dist"),
        ("dist file", (), "a file of the checkpoint is missing"),
        ("dist short", (), "is shorter than the checkpoint's metadata says"),
        ("dist metadata", (), "cannot be read as a distributed checkpoint's"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(fail, tmp_path, load, how, flags, message):
    spoil(load, how)
    before = sorted(tmp_path.rglob("*"))
    error = fail("transfer", "--load", load, "--save", tmp_path / "start", *flags)
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_is_taken_is_refused(fail, tmp_path, load):
    write_torch(load, {"mp_rank_00": {"model": trained()}})
    (tmp_path / "start").mkdir()
    assert "is there already" in fail("transfer", "--load", load, "--save", tmp_path / "start")
    assert "lies inside --load" in fail("transfer", "--load", load, "--save", load / "start")
    assert "there is no folder" in fail("transfer", "--load", load, "--save", tmp_path / "no" / "start")
