"""Real tokenizers of text, and the loaders that need one, through the switch in Megatron-LM's own `pretrain_gpt.py`.

They want `transformers`: `pip install transformers`.
"""

import json
from dataclasses import replace

import pytest

from megatron_nca.rehearsal.megatron_lm import TINY_GPT_FLAGS, Run

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="transformers is not installed")

END, PADDING = "<|endoftext|>", "<fim_pad>"
FILL_IN = ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"]
ENTRY = "nca:tokens=2560,grid=4,colors=3,gzip=none,trajectory=64"
"""Five batches of eight samples of 64 tokens."""
SWITCH, ITERATIONS = 5, 10

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A folder as `--tokenizer-model` takes it: a byte-level BPE whose first ids are special."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END, PADDING, *FILL_IN],
        show_progress=False,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    )
    library.train_from_iterator(sentences(), trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, eos_token=END, pad_token=PADDING, additional_special_tokens=FILL_IN
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    fast.save_pretrained(folder)
    return folder


def sentences():
    """A text that repeats itself in different words."""
    for number in range(400):
        factor = number % 17
        yield f"def add_{number}(a, b):\n    return a + b * {factor}\n\n\nassert add_{number}(1, 2) == {1 + 2 * factor}\n" * 2


@pytest.fixture(scope="module")
def text(tokenizer, tmp_path_factory):
    """The prefix of that text in that tokenizer."""
    import numpy
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder, get_bin_path, get_idx_path

    ids = transformers.AutoTokenizer.from_pretrained(tokenizer)
    prefix = tmp_path_factory.mktemp("text") / "text"
    builder = IndexedDatasetBuilder(get_bin_path(str(prefix)), dtype=numpy.uint16)
    for sentence in sentences():
        tokens = torch.tensor([*ids.encode(sentence), ids.eos_token_id])
        builder.add_document(tokens, [len(tokens)])
    builder.finalize(get_idx_path(str(prefix)))
    return prefix


@pytest.fixture
def run(checkout, tokenizer, text):
    return Run(
        checkout,
        (*("--data-path", ENTRY, str(text)), *("--train-iters", str(ITERATIONS))),
        audited=True,
        tokenizer=("--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(tokenizer)),
    )


def went_through(run, folder):
    """Run to the end; return its log, once the audit has found a switch."""
    log = run.complete(folder)
    output = (folder / "rank0.log").read_text()
    assert "switch to text after 40 samples" in output
    assert "audit: nothing went back after a step" in output
    assert max(log.losses) == ITERATIONS
    return log


def test_a_hugging_face_tokenizer_and_its_special_ids_go_through_the_switch(run, tmp_path):
    log = went_through(run, tmp_path)
    assert log.losses[SWITCH + 1] > log.losses[SWITCH], "the embeddings are new"


def test_fill_in_the_middle_begins_with_the_text(run, tmp_path):
    """Filling in rearranges text; automata are read as they are."""
    plain = went_through(run, tmp_path / "plain")
    filled = went_through(
        replace(run, flags=(*run.flags, "--fim-data", "--fim-rate", "1.0", "--fim-spm-rate", "0.5")), tmp_path / "filled"
    )
    nca, text = ({step for step in plain.losses if step <= SWITCH}, {step for step in plain.losses if step > SWITCH + 1})
    assert nca
    assert {step: filled.losses[step] for step in nca} == {step: plain.losses[step] for step in nca}
    assert all(filled.losses[step] != plain.losses[step] for step in text)


@pytest.mark.parametrize("spelling", ["flags", "file"])
def test_caches_that_are_there_are_read_without_a_look(run, text, tmp_path, spelling):
    """`--dataloader-fast-cache-load` takes paths by split, from flags or a file, and caches that an earlier start has made."""
    own = {"train": [ENTRY, str(text)], "valid": [str(text)], "test": [str(text)]}
    if spelling == "file":
        (tmp_path / "paths.json").write_text(json.dumps(own))
        paths = ("--per-split-data-args-path", str(tmp_path / "paths.json"))
    else:
        paths = tuple(word for split, words in own.items() for word in (f"--{split}-data-path", *words))
    at = TINY_GPT_FLAGS.index("--split")
    model = TINY_GPT_FLAGS[:at] + TINY_GPT_FLAGS[at + 2 :]
    flags = (*paths, *("--train-iters", str(ITERATIONS)), *("--data-cache-path", str(tmp_path / "cache")))
    slow = went_through(replace(run, flags=flags, model=model), tmp_path / "slow")
    before = sorted(path.name for path in (tmp_path / "cache").iterdir())
    fast = went_through(replace(run, flags=(*flags, "--dataloader-fast-cache-load"), model=model), tmp_path / "fast")
    assert fast.losses == slow.losses
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == before
