"""``plan --checkpoint``: the record of every stack's checkpoint, read without the stack."""

import json
from types import SimpleNamespace

import pytest
import torch

from megatron_nca.data.amending import Amendment, amend, history_of
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.data.run import Datasets
from megatron_nca.training.record import Record, packed
from tests.conftest import write_text

SEQUENCE = 128


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return {name: write_text(folder / name, 100, seed) for seed, name in enumerate("abc")}


@pytest.fixture
def path(texts):
    return lambda words: [texts.get(word, word) for word in words.split()]


def read(words):
    return read_blend((words, None))


@pytest.fixture
def record(path):
    """A run of a and b, changed at sample 160, with a checkpoint at sample 240."""
    plan = plan_training(
        read(path("nca:tokens=10240,grid=4 phase:tokens=1M 0.5 a 0.5 b phase: a")), SEQUENCE, 800, BatchBoundaries(8)
    )
    history = history_of(plan)
    plan = amend(plan, Amendment(read(path("phase: 0.25 a 0.75 c")), 160, {}), 800, BatchBoundaries(8, 160))
    datasets = Datasets(None, 1234, "tokens", ("", ""), history_of(plan, history))
    return Record.of(plan, datasets, 240, True).state_dict()


WAYS = ["torch", "torch_dist", "Bridge", "NeMo"]


@pytest.fixture(params=WAYS)
def checkpoint(request, record, tmp_path):
    folder = tmp_path / "iter_0000030"
    folder.mkdir()
    args = {"args": SimpleNamespace(nca_curriculum=record), "iteration": 30}
    if request.param == "NeMo":
        (folder / "weights").mkdir()
        torch.save({"callbacks": {"NCACallback": {"record": record}}}, folder / "weights/common.pt")
        return folder
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("30")
    if request.param == "Bridge":
        torch.save({"step": torch.tensor(30), "nca_curriculum": packed(record)}, folder / "train_state.pt")
    elif request.param == "torch_dist":
        torch.save(args, folder / "common.pt")
    else:
        (folder / "mp_rank_00").mkdir()
        torch.save(args, folder / "mp_rank_00/model_optim_rng.pt")
    return tmp_path


def rows(result):
    return {one["source"].rpartition("/")[2]: one for one in result["sources"]}


def test_what_was_read_is_told_source_by_source(succeed, checkpoint):
    result = succeed("plan", "--checkpoint", checkpoint)
    found = rows(result)
    assert result["consumed"] == 240
    assert [one["samples"] for one in result["sources"]] == [80, 60, 40, 60], "NCA, a, b, c"
    assert found["a"]["tokens"] == 60 * SEQUENCE
    assert found["a"]["added_samples"] + found["c"]["added_samples"] == 560
    assert found["a"]["epochs_at_end"] > found["a"]["epochs"] > 0


def test_epochs_are_of_the_part_that_training_reads(succeed, record, tmp_path, texts):
    torch.save({"args": SimpleNamespace(nca_curriculum=record)}, tmp_path / "common.pt")
    tokens = (tmp_path.parent / texts["a"]).with_suffix(".bin").stat().st_size // 4
    result = rows(succeed("plan", "--checkpoint", tmp_path, "--split", "50,25,25"))
    assert result["a"]["epochs"] == pytest.approx(60 * SEQUENCE / (tokens / 2))


LAUNCH = ("--seq-length", SEQUENCE, "--global-batch-size", 8, "--train-samples", 1040)


def test_a_launch_tells_what_it_will_add(succeed, record, path, tmp_path):
    torch.save({"args": SimpleNamespace(nca_curriculum=record)}, tmp_path / "common.pt")
    longer = rows(succeed("plan", "--checkpoint", tmp_path, "--data-path", *path("phase: 0.25 a 0.75 c"), *LAUNCH))
    assert (longer["a"]["samples"], longer["a"]["added_samples"], longer["c"]["added_samples"]) == (60, 200, 600)
    changed = ("--data-path", *path("phase: 0.5 a 0.5 b"), *LAUNCH, "--nca-amend-curriculum")
    result = rows(succeed("plan", "--checkpoint", tmp_path, *changed))
    assert [result[name]["added_samples"] for name in "abc"] == [400, 400, 0]
    assert rows(succeed("plan", "--checkpoint", tmp_path, "--json", "--", "torchrun", "pretrain_gpt.py", *changed)) == result


def test_it_is_printed_as_a_table(command, record, tmp_path):
    torch.save({"args": SimpleNamespace(nca_curriculum=record)}, tmp_path / "common.pt")
    code, out, _ = command("plan", "--checkpoint", tmp_path)
    assert code == 0
    assert "240 samples of 128 tokens consumed, of 800" in out
    assert len([line for line in out.splitlines() if line.startswith("data path: ")]) == 2


def test_a_checkpoint_without_a_record_is_told_in_one_line(fail, tmp_path):
    assert "no checkpoint of Megatron-LM, Megatron-Bridge or NeMo" in fail("plan", "--checkpoint", tmp_path)
    torch.save({"args": SimpleNamespace()}, tmp_path / "common.pt")
    assert "holds no record of a curriculum" in fail("plan", "--checkpoint", tmp_path)


def test_a_damaged_tracker_is_told_in_one_line(fail, tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("30x")
    assert "latest_checkpointed_iteration.txt says '30x'; it should be an iteration, or release" in fail(
        "plan", "--checkpoint", tmp_path
    )


def test_the_callback_of_earlier_versions_is_known_by_its_own_name(fail, record, tmp_path):
    old = {name: value for name, value in record.items() if name != "history"} | {"version": 2}
    torch.save({"callbacks": {"NCACallback": {"note": old}}}, tmp_path / "common.pt")
    assert "of version 2, does not tell what was asked of each text" in fail("plan", "--checkpoint", tmp_path)


def test_a_record_that_does_not_tell_what_was_asked_is_refused(fail, record, tmp_path):
    old = {name: value for name, value in record.items() if name != "history"} | {"version": 2}
    torch.save({"args": SimpleNamespace(nca_curriculum=old)}, tmp_path / "common.pt")
    assert "of version 2, does not tell what was asked of each text" in fail("plan", "--checkpoint", tmp_path)


def test_it_needs_neither_megatron_nor_a_gpu(in_process, record, tmp_path):
    torch.save({"args": SimpleNamespace(nca_curriculum=record)}, tmp_path / "common.pt")
    (tmp_path / "megatron").mkdir()
    (tmp_path / "megatron/__init__.py").write_text("raise ImportError('no Megatron here')\n")
    done = in_process("plan", "--checkpoint", str(tmp_path), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["consumed"] == 240
