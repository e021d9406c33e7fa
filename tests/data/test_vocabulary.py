import re
from types import SimpleNamespace

import numpy as np
import pytest

from megatron_nca.data.entry import parse_entry
from megatron_nca.data.vocabulary import required_end_of_document, special_ids, token_ids
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


def hugging_face(specials):
    """A Hugging Face tokenizer whose first ids are added tokens, in Megatron-Core's two wrappers."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"<|{number}|>": number for number in range(specials)} | {str(number): specials + number for number in range(200)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<|0|>"))
    inner.add_special_tokens([f"<|{number}|>" for number in range(specials)])
    automatic = SimpleNamespace(added_tokens_decoder=inner.get_added_tokens_decoder(), all_special_ids=[0])
    library = SimpleNamespace(tokenizer=automatic, eod=1)
    return SimpleNamespace(_tokenizer=library, eod=1, vocab_size=inner.get_vocab_size())


def test_added_tokens_that_are_special_are_passed_over():
    ids = token_ids(parse_entry("nca:colors=3"), hugging_face(100))
    np.testing.assert_array_equal(ids, np.arange(100, 183))


def test_added_tokens_that_are_words_are_no_special_ones():
    added = {5: SimpleNamespace(special=False), 6: SimpleNamespace(special=True)}
    assert special_ids(SimpleNamespace(tokenizer=SimpleNamespace(added_tokens_decoder=added))) == {6}


def test_special_tokens_of_tiktoken_are_passed_over():
    encoding = SimpleNamespace(_special_tokens={f"<SPECIAL_{number}>": number for number in range(1000)})
    assert special_ids(SimpleNamespace(_tokenizer=SimpleNamespace(tokenizer=encoding))) == set(range(1000))


def test_control_pieces_of_sentencepiece_are_passed_over():
    processor = SimpleNamespace(get_piece_size=lambda: 10, is_control=lambda number: number in (1, 4))
    assert special_ids(SimpleNamespace(tokenizer=processor)) == {1, 4}


def test_an_end_of_document_among_the_lowest_ids_is_no_token_of_nca():
    for tokenizer in (SimpleNamespace(vocab_size=100, eod=10), SimpleNamespace(vocab_size=100, eod=10, pad=10)):
        assert 10 not in token_ids(parse_entry("nca:colors=3"), tokenizer)


@pytest.mark.parametrize("tokenizer", [SimpleNamespace(), SimpleNamespace(eod=None), SimpleNamespace(eod=-1)])
def test_packed_sequences_need_an_end_of_document(tokenizer):
    with pytest.raises(VocabularyError, match="no end-of-document token"):
        required_end_of_document(tokenizer, ENTRY)


def test_the_offset_that_is_advised_covers_no_special_token():
    entry = parse_entry("nca:colors=3,vocab=offset:1000")
    tokenizer = SimpleNamespace(vocab_size=256, eod=255, pad=200, bos=1)
    with pytest.raises(VocabularyError) as refused:
        token_ids(entry, tokenizer)
    advised = int(re.search(r"an offset of at most (\d+), ", str(refused.value))[1])
    assert advised == 200 - entry.config.vocab_size
    token_ids(parse_entry(f"nca:colors=3,vocab=offset:{advised}"), tokenizer)
