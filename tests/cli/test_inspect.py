import json

import numpy as np
import pytest

from megatron_nca import NCAConfig, NCASource

FEW = ("--rules", 200)


def test_a_sample_is_what_a_training_run_reads(succeed):
    sample = succeed("inspect", "nca:", "--first", 3, "--seq-length", 256, *FEW)["samples"][0]
    expected = NCASource(NCAConfig(gzip=(0.5, 1.0)), 1234).tokens(3, 257)
    np.testing.assert_array_equal(sample["tokens"], expected[:-1])
    np.testing.assert_array_equal(sample["labels"], expected[1:])
    assert sum(sample["loss_mask"]) == 256 - 37
    assert sample["documents"] == [[0, 256]]


def test_packed_documents_are_bounded_by_their_trajectories(succeed):
    result = succeed(
        "inspect", "nca:trajectory=100", "--seq-length", 256, "--first", 2, "--eod", 7, "--vocab-size", 11_000, *FEW
    )
    sample = result["samples"][0]
    assert sample["documents"] == [[0, 100], [100, 200], [200, 256]]
    assert sample["trajectories"] == [6, 7, 8]
    assert sample["tokens"][99] == sample["tokens"][199] == 7


def test_the_papers_figures_stand_beside_ours(succeed):
    result = succeed("inspect", "nca:", "--rules", 1000)
    assert result["acceptance"] == pytest.approx(result["paper"]["acceptance"], abs=0.05)
    for name, value in result["paper"]["statistics"].items():
        assert result["statistics"][name] == pytest.approx(value, rel=0.05)


def test_the_papers_figures_are_those_of_its_released_code():
    from pathlib import Path

    from megatron_nca.automaton.statistics import PAPER

    stored = np.load(Path(__file__).parents[1] / "data" / "reference" / "base.npz")
    ratios = stored["gzip_ratio"]
    for band, (acceptance, means) in PAPER.items():
        inside = np.ones(len(ratios), bool) if band is None else (ratios > band[0]) & (ratios < band[1])
        assert acceptance == pytest.approx(inside.mean(), abs=1e-3)
        for name, mean in means.as_dict().items():
            assert mean == pytest.approx(stored[name][inside].mean(), rel=1e-3)


def test_other_settings_have_no_figures_of_the_paper(command):
    code, out, _ = command("inspect", "nca:colors=4,gzip=none", *FEW)
    assert code == 0
    assert "the paper has no figures for these settings" in out


def test_the_text_shows_tokens_labels_and_mask(command):
    _, out, _ = command("inspect", "nca:", "--tokens", 5, *FEW)
    assert "sample 0: 1,024 tokens, 987 labels with loss (96.4%)" in out
    assert [len(line.split()) for line in out.splitlines() if "labels  " in line] == [6]


def test_a_tokenizer_file_keeps_special_ids_out(succeed, tmp_path):
    added = [{"id": 2, "content": "</s>", "special": True}, {"id": 0, "content": "<unk>", "special": True}]
    result = {"model": {"vocab": {str(number): number for number in range(12_000)}}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(result), encoding="utf-8")
    tokens = succeed("inspect", "nca:", "--tokenizer", tmp_path, *FEW)["samples"][0]["tokens"]
    assert not {0, 2} & set(tokens)
    assert tokens[0] == 10_002, "<grid>, moved up by two special ids below it"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nca:gzip=0.98-0.99"], "0 of 1,600 random rules"),
        (["nca:grid=13"], "does not divide the grid"),
        (["web"], "must start with 'nca:'"),
        (["nca:", "--seq-length", "40"], "use sequences of at least 76 tokens"),
        (["nca:", "--vocab-size", "5000"], "do not fit the tokenizer"),
        (["nca:", "--eod", "99999"], "lies outside the vocabulary"),
        (["nca:", "--tokenizer", "/no/such.json"], "cannot be read"),
        (["nca:", "--tokenizer", __file__], "is no tokenizer.json"),
        (["nca:", "--special-ids", "a"], "must be ids separated by commas"),
        (["nca:", "--samples", "many"], "is not a count"),
    ],
)
def test_bad_input_is_one_clear_error(fail, arguments, problem):
    assert problem in fail("inspect", *arguments)
