"""`megatron-nca transfer` on checkpoints made by hand.

What is new must be what a switch inside one run makes for the same seed; the rest must be what it was, bit for bit.
"""

import json
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tests.cli.transfer.by_hand import (
    EMBEDDING,
    FC1,
    OUTPUT,
    ROWS,
    SEED,
    WIDTH,
    assert_restarted,
    digests,
    in_decoder,
    read_dist,
    read_torch,
    stacked,
    switched,
    trained,
    write_dist,
    write_torch,
)


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


def test_an_integrity_manifest_is_renewed(load, transfer):
    write_dist(load, stacked(trained()))
    (load / "iter_0000007" / "integrity.json").write_text("{}")
    release = transfer()[0] / "release"
    manifest = json.loads((release / "integrity.json").read_text())
    files = {path.name: digest for path, digest in digests(release).items() if path.name != "integrity.json"}
    assert manifest == {"algorithm": "sha256", "files": files}


def test_the_text_says_what_is_new_and_how_to_start(command, tmp_path, load):
    write_torch(load, {"mp_rank_00": {"model": trained()}}, nca_curriculum={"transition_done": True})
    code, out, _ = command("transfer", "--load", load, "--save", tmp_path / "start")
    assert code == 0
    assert f"new: {EMBEDDING} (4096, 8)" in out
    assert f"--pretrained-checkpoint {tmp_path / 'start'}" in out
    assert "had already gone over to text" in out
