import numpy as np
import pytest

from megatron_nca.data.entry import parse_entry
from megatron_nca.data.vocabulary import special_ids, token_ids
from megatron_nca.errors import VocabularyError


class Tokenizer:
    vocab_size = 10_010
    eod = 3
    pad = 0
    additional_special_tokens_ids = (7, 9_000)

    @property
    def special_tokens_dict(self):
        return {"bos": 1, "name": "<x>"}

    @property
    def mask(self):
        raise NotImplementedError


ENTRY = parse_entry("nca:")


def test_special_ids_are_found_wherever_a_tokenizer_keeps_them():
    assert special_ids(Tokenizer()) == {0, 1, 3, 7, 9_000}


def test_absent_tokens_are_no_ids():
    class Null:
        vocab_size = 100
        eod = 99
        cls = sep = mask = pad = bos = -1

    assert special_ids(Null()) == {99}


def test_shared_ids_are_the_lowest_that_are_not_special():
    ids = token_ids(ENTRY, Tokenizer())
    assert ids.dtype == np.int64
    assert list(ids[:5]) == [2, 4, 5, 6, 8]
    assert len(set(ids.tolist())) == 10_002
    assert not set(ids.tolist()) & {0, 1, 3, 7, 9_000}
    assert ids.max() == 10_006


def test_an_offset_is_the_first_id():
    entry = parse_entry("nca:colors=3,vocab=offset:10")
    np.testing.assert_array_equal(token_ids(entry, Tokenizer()), np.arange(10, 93))


def test_an_offset_may_reach_into_the_padded_vocabulary():
    entry = parse_entry("nca:colors=3,vocab=offset:10000")
    with pytest.raises(VocabularyError, match="an offset of at most 9,927"):
        token_ids(entry, Tokenizer())
    assert token_ids(entry, Tokenizer(), padded_vocab_size=10_112)[-1] == 10_082


@pytest.mark.parametrize(
    ("text", "vocab_size", "remedy"),
    [
        ("nca:", 10_006, "has 10,001 ids"),
        ("nca:", 5_000, "use colors=8 or fewer"),
        ("nca:colors=3,vocab=offset:8950", 10_010, "covers the special token 9000"),
        ("nca:vocab=offset:9", 10_001, "use colors=9 or fewer"),
        ("nca:", 10, "a smaller patch"),
    ],
)
def test_ids_that_do_not_fit_are_refused_with_what_would(text, vocab_size, remedy):
    tokenizer = Tokenizer()
    tokenizer.vocab_size = vocab_size
    with pytest.raises(VocabularyError, match=remedy) as raised:
        token_ids(parse_entry(text), tokenizer)
    assert repr(text) in str(raised.value)


def test_a_remedy_of_the_error_works():
    tokenizer = Tokenizer()
    tokenizer.vocab_size = 5_000
    assert len(token_ids(parse_entry("nca:colors=8"), tokenizer)) == 8**4 + 2
