import numpy as np
import pytest
import torch

from megatron_nca import NCAConfig, NCASource
from megatron_nca.data.entry import parse_entry
from megatron_nca.data.vocabulary import token_ids

BANDED = NCAConfig(gzip=(0.5, 1.0))


@pytest.fixture
def ids(tokenizer):
    return token_ids(parse_entry("nca:"), tokenizer)


def test_a_sample_is_one_trajectory_and_its_labels_are_the_next_tokens(build, ids):
    sample = build(["nca:"])[0][3]
    expected = ids[NCASource(BANDED, 1234).tokens(3, 129)]
    np.testing.assert_array_equal(sample["tokens"], expected[:-1])
    np.testing.assert_array_equal(sample["labels"], expected[1:])
    assert sample["loss_mask"].sum() == 128 - 37


def test_a_long_sequence_packs_trajectories_each_ended_by_eod(build, ids, tokenizer):
    sample = build(["nca:trajectory=128"], sequence_length=512)[0][2]
    source = NCASource(BANDED, 1234)
    documents = [np.append(ids[source.tokens(4 * 2 + place, 127)], tokenizer.eod) for place in range(4)]
    np.testing.assert_array_equal(sample["tokens"], np.concatenate(documents))
    assert sample["labels"][-1] == ids[BANDED.patch_tokens], "the next trajectory opens a frame"


def test_resets_follow_the_packed_documents(build):
    sample = build(
        ["nca:trajectory=128"], sequence_length=256, reset_position_ids=True, reset_attention_mask=True, eod_mask_loss=True
    )[0][0]
    assert sample["position_ids"][127:130].tolist() == [127, 0, 1]
    assert sample["attention_mask"][0, 200, 127]
    assert not sample["attention_mask"][0, 200, 128]
    assert sample["loss_mask"][127] == 0


def test_without_an_extra_token_the_last_label_is_padding(build, ids):
    sample = build(["nca:"], add_extra_token_to_sequence=False)[0][0]
    assert len(sample["tokens"]) == len(sample["labels"]) == 128
    np.testing.assert_array_equal(sample["tokens"], ids[NCASource(BANDED, 1234).tokens(0, 128)])
    assert sample["loss_mask"][-1] == 0


@pytest.mark.parametrize("trajectory", [128, 100])
def test_packing_works_without_an_extra_token(build, trajectory):
    train = build([f"nca:trajectory={trajectory}"], sequence_length=256, add_extra_token_to_sequence=False)[0]
    assert len(train[0]["tokens"]) == 256


def test_an_attention_mask_is_made_only_on_demand(build):
    assert "attention_mask" not in build(["nca:"], create_attention_mask=False)[0][0]


def test_reading_a_sample_twice_gives_masks_of_its_own(build):
    train = build(["nca:"])[0]
    first = train[0]["loss_mask"]
    first.zero_()
    assert train[1]["loss_mask"].sum() == 128 - 37


def test_a_padding_sample_has_no_loss(build):
    assert build(["nca:"])[0][None]["loss_mask"].sum() == 0


def test_splits_hold_different_rules(build):
    train, valid, test = build(["nca:"])
    rows = {tuple(dataset[0]["tokens"].tolist()) for dataset in (train, valid, test)}
    assert len(rows) == 3


def test_the_entrys_seed_goes_before_the_runs(build):
    assert torch.equal(build(["nca:seed=9"])[0][0]["tokens"], build(["nca:seed=9"], random_seed=77)[0][0]["tokens"])
    assert not torch.equal(build(["nca:"])[0][0]["tokens"], build(["nca:"], random_seed=77)[0][0]["tokens"])


def test_token_ids_are_never_special(build, tokenizer):
    train = build(["nca:"])[0]
    seen = torch.stack([train[place]["tokens"] for place in range(20)])
    assert not torch.isin(seen, torch.tensor([tokenizer.eod, tokenizer.pad, tokenizer.bos])).any()
