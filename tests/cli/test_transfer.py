"""`megatron-nca transfer`, on checkpoints made by hand and on those that Megatron-LM writes.

What is new must be what a switch inside one run makes for the same seed; the rest must be what it was, bit for bit.
"""

import argparse
import hashlib
import io
import json
import math
import pickle
import shutil
import sys
import types
from dataclasses import replace

import pytest
import torch
import torch.distributed.checkpoint as dcp

from megatron_nca.rehearsal.megatron_lm import Run
from megatron_nca.training import reinit
from tests.rehearsal.conftest import corpus, pytest_generate_tests  # noqa: F401
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


@pytest.fixture
def load(tmp_path):
    return tmp_path / "nca"


@pytest.fixture
def transfer(succeed, tmp_path, load):
    """Transfer what lies in `load`; returns the new folder and what the command said. `load` must not change."""

    def call(*flags):
        before = digests(load)
        said = succeed("transfer", "--load", load, "--save", tmp_path / "start", *flags)
        assert digests(load) == before
        assert (tmp_path / "start" / "latest_checkpointed_iteration.txt").read_text() == "release"
        return tmp_path / "start", said

    return call


def test_every_rank_of_the_format_torch_gets_its_rows(load, transfer, monkeypatch):
    ranks = {}
    for tensor in (0, 1):
        ranks[f"mp_rank_0{tensor}_000"] = {"model": trained(tensor, size=2, last=False, layers=(1,))}
        ranks[f"mp_rank_0{tensor}_001"] = {"model": trained(tensor, size=2, first=False, layers=(1,))}
    write_torch(load, ranks, tensor_model_parallel_size=2, pipeline_model_parallel_size=2)
    start, said = transfer()
    for tensor in (0, 1):
        expected = switched(rank=tensor, size=2, monkeypatch=monkeypatch)[EMBEDDING]
        for stage, key in ((0, EMBEDDING), (1, OUTPUT)):
            name = f"mp_rank_0{tensor}_00{stage}"
            state = read_torch(start, name)
            assert torch.equal(state["model"].pop(key), expected)
            kept = ranks[name]["model"]
            assert set(state["model"]) == set(kept) - {key}
            assert all(torch.equal(value, kept[key]) for key, value in state["model"].items())
            assert set(state) == {"args", "model", "iteration", "checkpoint_version", "num_floating_point_operations_so_far"}
            assert state["iteration"] == state["num_floating_point_operations_so_far"] == 0
            assert_restarted(state["args"])
    assert said["renewed"][EMBEDDING] == [ROWS, WIDTH]
    assert (said["format"], said["iteration"], said["consumed_samples"], said["seed"]) == ("torch", 7, 56, SEED)


def test_expert_parallel_ranks_all_get_the_whole_embedding_and_keep_their_experts(load, transfer):
    experts = {f"mp_rank_00_00{rank}": {"decoder.layers.0.mlp.experts.x": torch.full((2, 2), rank + 3.0)} for rank in (0, 1)}
    write_torch(load, {name: {"model": {**trained(), **expert}} for name, expert in experts.items()})
    start, _ = transfer()
    for name, expert in experts.items():
        model = read_torch(start, name)["model"]
        assert torch.equal(model[EMBEDDING], switched()[EMBEDDING])
        assert all(torch.equal(model[key], value) for key, value in expert.items())


def test_untied_embeddings_are_those_of_the_switch(load, transfer):
    write_torch(load, {"mp_rank_00": {"model": trained(tied=False)}}, untie_embeddings_and_output_weights=True)
    model = read_torch(transfer()[0])["model"]
    expected = switched(tied=False)
    assert torch.equal(model[EMBEDDING], expected[EMBEDDING])
    assert torch.equal(model[OUTPUT], expected[OUTPUT])


@pytest.mark.parametrize("common_inside", [False, True], ids=["common.pt", "common inside"])
def test_the_format_torch_dist_keeps_its_bytes_and_gets_new_embeddings(load, transfer, common_inside):
    model = stacked(trained())
    write_dist(load, model, common_inside)
    start, said = transfer()
    state = read_dist(start)
    common = state.pop("common_state/shard_0_1")[0] if common_inside else None
    if common is None:
        common = torch.load(start / "release" / "common.pt", weights_only=False)
    assert_restarted(common["args"])
    assert common["iteration"] == 0
    assert "opt_param_scheduler" not in common
    assert torch.equal(state.pop(EMBEDDING), switched()[EMBEDDING])
    assert set(state) == set(model) - {EMBEDDING}
    assert all(torch.equal(value, model[key]) for key, value in state.items())
    assert said["format"] == "torch_dist"
    assert sum(path.stat().st_size for path in start.rglob("*")) < 300_000 < sum(len(x) for x in read_all(load))


def read_all(folder):
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("checkpoint_format", ["torch", "torch_dist"])
def test_another_vocabulary_keeps_the_rows_it_shares(load, transfer, checkpoint_format):
    if checkpoint_format == "torch":
        write_torch(load, {"mp_rank_00": {"model": trained()}})
    else:
        write_dist(load, stacked(trained()))
    start, said = transfer("--padded-vocab-size", 4500)
    weight = read_torch(start)["model"][EMBEDDING] if checkpoint_format == "torch" else read_dist(start)[EMBEDDING]
    assert weight.shape == (4500, WIDTH)
    assert torch.equal(weight[:ROWS], switched()[EMBEDDING])
    assert weight[ROWS:].std() == pytest.approx(0.02, rel=0.1)
    assert said["renewed"][EMBEDDING] == [4500, WIDTH]


def test_a_large_embedding_is_written_in_pieces(load, transfer, monkeypatch):
    from megatron_nca.checkpoints import torch_dist

    monkeypatch.setattr(torch_dist, "PIECE_BYTES", 1000 * 4 * WIDTH)
    write_dist(load, stacked(trained()))
    start, _ = transfer()
    assert len(dcp.FileSystemReader(start / "release").read_metadata().state_dict_metadata[EMBEDDING].chunks) == 5
    assert torch.equal(read_dist(start)[EMBEDDING], switched()[EMBEDDING])


def test_half_precision_is_rounded_as_at_the_switch(load, transfer):
    write_dist(load, {key: value.bfloat16() for key, value in stacked(trained()).items()})
    assert torch.equal(read_dist(transfer()[0])[EMBEDDING], switched()[EMBEDDING].bfloat16())


PARTS = ("embeddings", "attention", "mlp", "norms")


@pytest.mark.parametrize("part", PARTS)
def test_layers_are_drawn_as_at_the_switch(load, transfer, part):
    write_dist(load, stacked(trained()))
    state = read_dist(transfer("--reinit", part)[0])
    before = stacked(trained())
    after = stacked({in_decoder(name): weight for name, weight in switched((part,)).items()})
    changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(torch.equal(state[name], after[name]) for name in changed)
    assert all(not after[name].any() for name in set(state) - changed)


def test_interleaved_ranks_of_the_format_torch_count_layers_over_the_whole_model(load, transfer, monkeypatch):
    """Two stages of two chunks hold layers 1 and 3, 2 and 4; two ranks share gate and up of each."""
    sizes = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
    ranks = {
        f"mp_rank_0{tensor}_00{stage}": {
            f"model{chunk}": trained(size=2, first=(stage, chunk) == (0, 0), last=(stage, chunk) == (1, 1), layers=(1,))
            for chunk in (0, 1)
        }
        for tensor in (0, 1)
        for stage in (0, 1)
    }
    write_torch(load, ranks, **sizes)
    start, _ = transfer("--reinit", "attention,mlp")
    for tensor in (0, 1):
        expected = switched(("attention", "mlp"), tensor, 2, monkeypatch, layers=(1, 2, 3, 4))
        for number, (chunk, stage) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            model = read_torch(start, f"mp_rank_0{tensor}_00{stage}")[f"model{chunk}"]
            for name in ("self_attention.linear_qkv.weight", "self_attention.linear_proj.weight", FC1, "mlp.linear_fc2.weight"):
                assert torch.equal(model[f"decoder.layers.0.{name}"], expected[f"layers.{number}.{name}"])


def test_none_keeps_every_weight(load, transfer):
    write_torch(load, {"mp_rank_00": {"model": trained()}})
    start, said = transfer("--reinit", "none")
    model = read_torch(start)["model"]
    assert all(torch.equal(value, trained()[key]) for key, value in model.items())
    assert said["renewed"] == {}


def test_seed_and_deviation_can_be_chosen(load, transfer):
    write_torch(load, {"mp_rank_00": {"model": trained()}})
    weight = read_torch(transfer("--seed", 6, "--init-method-std", 0.5)[0])["model"][EMBEDDING]
    assert weight.std() == pytest.approx(0.5, rel=0.02)
    assert not torch.equal(weight, switched()[EMBEDDING] * 25)


def test_an_earlier_iteration_can_be_taken(load, transfer):
    write_torch(load, {"mp_rank_00": {"model": trained()}})
    shutil.copytree(load / "iter_0000007", load / "iter_0000003")
    (load / "latest_checkpointed_iteration.txt").write_text("9")
    assert transfer("--ckpt-step", 3)[1]["format"] == "torch"


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


def piece_of(start, key):
    storage = dcp.FileSystemReader(start / "release").read_metadata().storage_data
    info = next(info for index, info in storage.items() if index.fqn == key)
    return (start / "release" / info.relative_path).read_bytes()[info.offset :][: info.length]


def test_an_integrity_manifest_is_renewed(load, transfer):
    write_dist(load, stacked(trained()))
    (load / "iter_0000007" / "integrity.json").write_text("{}")
    release = transfer()[0] / "release"
    manifest = json.loads((release / "integrity.json").read_text())
    files = {path.name: digest for path, digest in digests(release).items() if path.name != "integrity.json"}
    assert manifest == {"algorithm": "sha256", "files": files}


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


def test_the_text_says_what_is_new_and_how_to_start(command, tmp_path, load):
    write_torch(load, {"mp_rank_00": {"model": trained()}}, nca_curriculum={"transition_done": True})
    code, out, _ = command("transfer", "--load", load, "--save", tmp_path / "start")
    assert code == 0
    assert f"new: {EMBEDDING} (4096, 8)" in out
    assert f"--pretrained-checkpoint {tmp_path / 'start'}" in out
    assert "had already gone over to text" in out


LAYOUTS = {
    "torch TP=2": (("--ckpt-format", "torch"), {"tensor_parallel": 2}),
    "torch PP=2 untied": (("--ckpt-format", "torch", "--untie-embeddings-and-output-weights"), {"pipeline_parallel": 2}),
    "torch PP=2 interleaved": (
        ("--ckpt-format", "torch", "--num-layers", "4", "--num-layers-per-virtual-pipeline-stage", "1"),
        {"pipeline_parallel": 2},
    ),
    "torch PP=2 multi-token prediction": (
        ("--ckpt-format", "torch", "--mtp-num-layers", "1", "--position-embedding-type", "rope"),
        {"pipeline_parallel": 2},
    ),
    "torch_dist bf16 DP=2": (("--ckpt-format", "torch_dist", "--bf16", "--use-distributed-optimizer"), {"data_parallel": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_megatron_starts_a_text_of_another_tokenizer(succeed, checkout, corpus, tmp_path, layout):  # noqa: F811
    flags, sizes = LAYOUTS[layout]
    flags = (*flags, "--hidden-dropout", "0", "--attention-dropout", "0")
    saving = ("--data-path", "nca:grid=4,colors=3,gzip=none,trajectory=64", "--save", "nca", "--save-interval", "4")
    nca = replace(Run(checkout, (*saving, "--train-iters", "4", *flags)), **sizes)
    nca.complete(tmp_path)
    succeed("transfer", "--load", tmp_path / "nca", "--save", tmp_path / "start", "--padded-vocab-size", "384")
    reading = ("--data-path", str(corpus), "--load", str(tmp_path / "start"), "--finetune", "--train-iters", "4")
    log = replace(nca, flags=(*reading, *flags), vocabulary=384, plugin=False).complete(tmp_path / "text")
    assert min(log.losses) == 1
    assert log.losses[1] == pytest.approx(math.log(384), abs=0.3)
    assert log.losses[4] < log.losses[1]
