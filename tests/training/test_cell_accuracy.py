import numpy as np
import pytest
import torch

from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.source import NCASource
from megatron_nca.automaton.tokens import decode_patches
from megatron_nca.data.layout import SampleLayout
from megatron_nca.training.cell_accuracy import cells_of_ids, count_cells, most_probable

CONFIG = NCAConfig(grid=4, colors=3, patch=2)


@pytest.fixture
def ids():
    return torch.arange(CONFIG.vocab_size) * 2 + 1


def test_the_table_holds_every_patchs_cells_and_none_elsewhere(ids):
    cells = cells_of_ids(CONFIG, ids, 200)
    one = NCAConfig(grid=2, colors=3, patch=2)
    expected = decode_patches(one, np.arange(one.patch_tokens)[:, None]).reshape(-1, 4)
    assert np.array_equal(cells[ids[: CONFIG.patch_tokens]].numpy(), expected)
    others = torch.ones(200, dtype=torch.bool)
    others[ids[: CONFIG.patch_tokens]] = False
    assert (cells[others] == -1).all()


def labels_and_frames(ids, length=64, trajectory=64):
    layout = SampleLayout(length, True, trajectory)
    tokens = NCASource(CONFIG, 1, "valid").tokens(0, length + 1).astype(np.int64)
    return ids[torch.from_numpy(tokens[1:])], torch.from_numpy(layout.frames_seen(CONFIG))


def test_the_truth_has_every_cell_and_another_colour_none(ids):
    cells = cells_of_ids(CONFIG, ids, 200)
    labels, seen = labels_and_frames(ids)
    right, there = count_cells(cells, labels, labels, seen, int(seen.max()) + 1)
    assert torch.equal(right, there)
    # A patch holds four cells.
    assert there.sum() == 4 * (seen >= 0).sum()
    shifted = (cells[labels] + 1) % 3
    other = (shifted.long() * 3 ** torch.arange(4)).sum(dim=-1)
    right, _ = count_cells(cells, ids[other], labels, seen, int(seen.max()) + 1)
    assert right.sum() == 0


def test_a_delimiter_in_a_patchs_place_has_no_cell_right(ids):
    cells = cells_of_ids(CONFIG, ids, 200)
    labels, seen = labels_and_frames(ids)
    right, _ = count_cells(cells, torch.full_like(labels, int(ids[CONFIG.patch_tokens])), labels, seen, int(seen.max()) + 1)
    assert right.sum() == 0


def test_frames_seen_are_counted_within_each_packed_trajectory():
    seen = SampleLayout(40, True, 20).frames_seen(CONFIG)
    # Frames are 6 tokens, so the labels of a trajectory's patches are 0..3 of frame 0, then frame 1; the 20th token is its EOD.
    first = [0, 0, 0, 0, -1, -1, 1, 1, 1, 1, -1, -1, 2, 2, 2, 2, -1, -1, -1, -1]
    assert list(seen) == first * 2


def test_the_most_probable_id_is_the_lowest_of_equals():
    logits = torch.tensor([[0.0, 3.0, 3.0], [1.0, 0.0, 0.5]])
    assert most_probable(logits, 10).tolist() == [11, 10]
