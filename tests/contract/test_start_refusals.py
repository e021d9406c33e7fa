"""What ``plan`` says of a launch that Megatron-LM refuses once it builds its datasets is what the launch says."""

import pytest

from megatron_nca.training.options import BY_NAME
from tests.conftest import Tokenizer
from tests.contract.drivers import MegatronLM
from tests.contract.machine import Launch
from tests.docs.refusals import AT_START, VOCABULARY, told_by_plan, write_texts

FLAG = "--nca-"


class SmallVocabulary(MegatronLM):
    """Megatron-LM with a model of as many ids as its tokenizer has."""

    def args(self, launch):
        args = super().args(launch)
        args.padded_vocab_size = VOCABULARY
        return args


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def megatron_lm(one_rank, tmp_path_factory):
    return SmallVocabulary(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("fragment", AT_START)
def test_plan_says_what_the_launch_says(fragment, texts, megatron_lm):
    case = AT_START[fragment]
    words = case.words(texts)
    path = words[1 : words.index("--seq-length")]
    options = {flag[len(FLAG) :].replace("-", "_"): value for flag, value in zip(case.flags, case.flags[1:], strict=False)
               if flag.startswith(FLAG)}  # fmt: skip
    assert set(options) <= set(BY_NAME)
    tokenizer = Tokenizer(VOCABULARY, *[VOCABULARY - 1] * 3)
    refused = megatron_lm.launch(Launch(tuple(path), options=options, steps=case.steps, tokenizer=tokenizer), until=1)
    assert fragment in str(refused.error)
    message, code = told_by_plan(case, texts)
    assert message == str(refused.error)
    assert code == (0 if case.is_note else 1)
