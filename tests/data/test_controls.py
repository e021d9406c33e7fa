"""The controls keep what they say they keep, and are as exact as NCA."""

import hashlib

import numpy as np
import pytest

from megatron_nca import NCASource
from megatron_nca.data.controls import make_source
from megatron_nca.data.curriculum import read_blend
from megatron_nca.data.entry import parse_entry
from megatron_nca.data.writing import write_words
from megatron_nca.errors import EntryError

ENTRY = parse_entry("nca:grid=6,colors=4,gzip=none,control=shuffled")
FRAME = ENTRY.config.frame_length


@pytest.fixture(scope="module")
def pair():
    return make_source(ENTRY, 1234), NCASource(ENTRY.config, 1234)


@pytest.mark.parametrize("length", [2 * FRAME, 100, 257, 1024])
def test_a_shuffled_trajectory_has_the_same_tokens_in_another_order(pair, length):
    shuffled, plain = (source.tokens(7, length) for source in pair)
    assert sorted(shuffled) == sorted(plain)
    assert (shuffled != plain).sum() > length / 4
    delimiters = plain >= ENTRY.config.patch_tokens
    assert (shuffled[delimiters] == plain[delimiters]).all()


def test_every_trajectory_has_an_order_of_its_own(pair):
    shuffled, _ = pair
    for index in (0, 1, 2**32, 2**47):
        order = shuffled._permutation(index, 300)
        assert sorted(order) == list(range(300))
        assert (order != shuffled._permutation(index + 1, 300)).mean() > 0.9


def test_any_place_is_as_likely_as_any_other(pair):
    orders = np.array([pair[0]._permutation(index, 8) for index in range(8000)])
    counts = np.array([np.bincount(orders[:, place], minlength=8) for place in range(8)])
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_squared < 110, "of 49 degrees of freedom, 1 in a million is larger"


def test_a_batch_is_its_trajectories_one_by_one(pair):
    assert (pair[0].tokens_batch([5, 9], 257) == np.stack([pair[0].tokens(5, 257), pair[0].tokens(9, 257)])).all()


def test_its_tokens_do_not_change_between_releases(pair):
    digest = hashlib.sha256(pair[0].tokens_batch(range(8), 257).astype("<i4").tobytes()).hexdigest()
    assert digest == "ec350cf118f8c70448e727d2f65eba638b4350caeae2b30f632554ebb3f24b9a"


def test_the_record_tells_a_control_from_nca():
    blend = (["nca:tokens=1M,grid=6,colors=4,control=shuffled", "text"], None)
    assert any("control=shuffled" in word for word in write_words(read_blend(blend)))
    assert read_blend((list(write_words(read_blend(blend))), None)).entries[0].control == "shuffled"


def test_another_word_is_refused():
    with pytest.raises(EntryError, match="control=cells: must be one of shuffled, dyck"):
        parse_entry("nca:control=cells")


DYCK = parse_entry("nca:grid=6,colors=4,gzip=none,control=dyck")


@pytest.mark.parametrize("index", [0, 5, 2**40])
def test_brackets_are_well_nested(index):
    nested, tokens = [], make_source(DYCK, 1234).tokens(index, 5000)
    for token in tokens.tolist():
        if token < 64:
            nested.append(token)
            assert len(nested) <= 16
        else:
            assert nested.pop() == token - 64
    assert set(tokens.tolist()) == set(range(128))
    opened = (tokens < 64).mean()
    assert 0.49 < opened < 0.52


def test_brackets_of_a_batch_and_of_a_part_are_the_same():
    source = make_source(DYCK, 1234)
    assert (source.tokens_batch([5, 9], 257)[1, :100] == source.tokens(9, 100)).all()
    assert (source.tokens(5, 100) != source.tokens(9, 100)).any()


def test_brackets_do_not_change_between_releases():
    digest = hashlib.sha256(make_source(DYCK, 1234).tokens_batch(range(8), 257).astype("<i4").tobytes()).hexdigest()
    assert digest == "c3589cd99c559d35155631bf15cd251fc4a624c7c4b076ec405ca6ca15b4dfa7"


def test_a_process_of_few_tokens_has_fewer_kinds_of_brackets():
    source = make_source(parse_entry("nca:colors=2,gzip=none,control=dyck"), 1234)
    assert source.tokens(0, 2000).max() < source.config.vocab_size
