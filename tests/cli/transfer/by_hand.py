"""Checkpoints of Megatron-LM made by hand, what is read of the new ones, and the weights of a switch inside one run."""

import argparse
import hashlib
import io
import math

import torch
import torch.distributed.checkpoint as dcp

from megatron_nca.training import reinit
from tests.training.test_reinit import Model

ROWS, WIDTH, SEED = 4096, 8, 5
EMBEDDING, OUTPUT = "embedding.word_embeddings.weight", "output_layer.weight"
POSITIONS, FC1 = "embedding.position_embeddings.weight", "mlp.linear_fc1.weight"


def arguments(**settings):
    known = {
        "seed": SEED, "num_layers": 8, "hidden_size": WIDTH, "init_method_std": 0.02, "tensor_model_parallel_size": 1,
        "pipeline_model_parallel_size": 1, "padded_vocab_size": ROWS, "iteration": 7, "consumed_train_samples": 56,
        "consumed_valid_samples": 8, "tokenizer_type": "NullTokenizer", "tokenizer_model": "nca", "swiglu": True,
        "untie_embeddings_and_output_weights": False, "nca_curriculum": {"transition_done": False},
    }  # fmt: skip
    return argparse.Namespace(**{**known, **settings})


def switched(parts=("embeddings",), rank=0, size=1, monkeypatch=None, **shape):
    """The weights of a rank after a switch inside one run."""
    model = Model(size=size, **shape)
    if monkeypatch:
        monkeypatch.setattr(reinit, "_tensor_parallel", lambda: (rank, size))
    reinit.reinitialize([model], parts, SEED)
    return {name: weight.detach() for name, weight in model.named_parameters()}


def in_decoder(name):
    return name if name.startswith(("embedding", "output")) else f"decoder.{name}"


def trained(seed=0, **shape):
    """A rank's model, as a checkpoint names it, with weights that no init method draws."""
    generator = torch.Generator().manual_seed(seed)
    parameters = Model(**shape).named_parameters()
    return {in_decoder(name): torch.rand(weight.shape, generator=generator) + 9 for name, weight in parameters}


def run_state(model):
    return {
        "optimizer": {"state": {0: {"exp_avg": torch.rand(100_000)}}},
        "opt_param_scheduler": {"num_steps": 56},
        "rng_state": [{"torch_rng_state": torch.get_rng_state()}],
        "num_floating_point_operations_so_far": 3.5,
        "iteration": 7,
        "checkpoint_version": 3.0,
        **model,
    }


def write_torch(folder, ranks, **settings):
    """Write the format torch; ranks maps the names of folders to models."""
    for name, models in ranks.items():
        (folder / "iter_0000007" / name).mkdir(parents=True)
        state = run_state({"args": arguments(**settings), **models})
        torch.save(state, folder / "iter_0000007" / name / "model_optim_rng.pt")
    (folder / "latest_checkpointed_iteration.txt").write_text("7")
    return folder


def read_torch(folder, name="mp_rank_00"):
    path = folder / "release" / name / "model_optim_rng.pt"
    return torch.load(path, weights_only=False)


def stacked(model):
    """All layers in one tensor, as torch_dist has them."""
    found = {}
    for name, weight in model.items():
        parts = name.split(".")
        if parts[:2] == ["decoder", "layers"]:
            found.setdefault(".".join([*parts[:2], *parts[3:]]), []).append(weight)
        else:
            found[name] = weight
    return {name: torch.stack(weight) if isinstance(weight, list) else weight for name, weight in found.items()}


def write_dist(folder, model, common_inside=False, **settings):
    """Write the format torch_dist, with the common part in common.pt or, as 0.19 does, among the rest."""
    iteration = folder / "iter_0000007"
    iteration.mkdir(parents=True)
    common = {key: value for key, value in run_state({}).items() if key not in ("optimizer", "rng_state")}
    common["args"] = arguments(**settings)
    state = {**model, "optimizer.state.exp_avg.x": torch.rand(100_000), "rng_state/shard_0_1": [torch.get_rng_state()]}
    if common_inside:
        state["common_state/shard_0_1"] = [common]
    else:
        torch.save(common, iteration / "common.pt")
    planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    dcp.save(state, storage_writer=dcp.FileSystemWriter(iteration), planner=planner, no_dist=True)
    (iteration / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    (folder / "latest_checkpointed_iteration.txt").write_text("7")
    return folder


def read_dist(folder):
    """Every tensor and object, loaded by torch's own reader."""
    reader = dcp.FileSystemReader(folder / "release")
    described = reader.read_metadata().state_dict_metadata
    state = {
        key: torch.full(value.size, math.nan, dtype=value.properties.dtype) if hasattr(value, "size") else io.BytesIO()
        for key, value in described.items()
    }
    dcp.load(state, storage_reader=reader, no_dist=True)
    return state


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def assert_restarted(args, padded_vocab_size=ROWS):
    assert (args.iteration, args.consumed_train_samples, args.consumed_valid_samples) == (0, 0, 0)
    assert not hasattr(args, "nca_curriculum")
    assert args.nca_transfer["iteration"] == 7
    assert args.nca_transfer["samples"] == 56
    assert args.padded_vocab_size == padded_vocab_size
    assert args.tokenizer_model is None


def piece_of(start, key):
    storage = dcp.FileSystemReader(start / "release").read_metadata().storage_data
    info = next(info for index, info in storage.items() if index.fqn == key)
    return (start / "release" / info.relative_path).read_bytes()[info.offset :][: info.length]
