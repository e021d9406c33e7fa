import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_nca import NCAConfig
from megatron_nca.data.layout import SampleLayout

CONFIG = NCAConfig(grid=4, colors=2)
FRAME = CONFIG.frame_length


def tokens_read(layout, sample):
    """(document, place in it) of every token that GPTDataset reads for a sample, by its own rule."""
    (first, offset), (last, end) = layout.begin(sample), layout.end(sample)
    if first == last:
        return [(first, place) for place in range(offset, end + layout.extra_token)]
    whole = [(document, place) for document in range(first, last) for place in range(layout.document_length)]
    return whole[offset:] + [(last, place) for place in range(end + layout.extra_token)]


@given(st.integers(12, 300), st.booleans(), st.integers(12, 100), st.integers(0, 1000))
def test_a_sample_is_full_and_starts_its_own_trajectories(sequence, extra, trajectory, sample):
    layout = SampleLayout(sequence, extra, trajectory)
    read = tokens_read(layout, sample)
    assert len(read) == sequence + extra
    assert all(place < layout.document_length for _, place in read)
    body = {document for document, _ in read[:sequence]}
    following = {document for document, _ in tokens_read(layout, sample + 1)[:sequence]}
    assert not body & following
    assert min(following) == max(body) + 1


@pytest.mark.parametrize(("sequence", "trajectory"), [(64, 64), (64, 100), (64, 32), (70, 32)])
def test_labels_without_loss_are_those_of_first_frames(sequence, trajectory):
    layout = SampleLayout(sequence, True, trajectory)
    trained = layout.trained_labels(CONFIG, "frames")
    assert trained.dtype == np.float32
    for place, (_, token) in enumerate(tokens_read(layout, 3)[1:]):
        assert trained[place] == (token >= FRAME)


def test_the_papers_sequence_leaves_out_37_labels():
    trained = SampleLayout(1024, True, 1024).trained_labels(NCAConfig(), "frames")
    assert trained.sum() == 1024 - 37
    assert not trained[:37].any()


def test_patches_leaves_out_delimiters_and_eod_too():
    layout = SampleLayout(64, True, 32)
    trained = layout.trained_labels(CONFIG, "patches")
    for place, (_, token) in enumerate(tokens_read(layout, 0)[1:]):
        is_patch = token % FRAME not in (0, FRAME - 1) and token != 31
        assert trained[place] == (token >= FRAME and is_patch)


def test_all_trains_every_label():
    assert SampleLayout(64, True, 32).trained_labels(CONFIG, "all").all()
