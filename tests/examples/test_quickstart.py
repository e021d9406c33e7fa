"""The quickstart: both runs to their ends, gone on with after a kill, and a report that claims no more than it has seen."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from examples.quickstart import report
from examples.quickstart.text import ByteLevelBPE, prepare
from examples.quickstart.train import held_out_text

ROOT = Path(__file__).parents[2]
SHAPE = {"layers": 2, "hidden": 32, "heads": 2, "feed_forward": 64, "sequence": 64}
ENTRY = "nca:tokens=10K,grid=4,colors=3,gzip=none"
RUN = ["--text-tokens", "20000", "--validate-every", "5000", "--documents", "60", "--shape"]
SETTINGS = ["--nca", ENTRY, *RUN, json.dumps(SHAPE)]
FIRST, ALL = 20, 60
"""Steps of 512 tokens."""
PATIENCE = 300


def start(out, *more):
    words = [sys.executable, "-m", "examples.quickstart", "--out", str(out), *SETTINGS, *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(out, *more):
    process = start(out, *more)
    printed, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, printed, errors


def result(out, name):
    return json.loads((out / name / "result.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    code, printed, errors = finish(out)
    assert code == 0, errors + (out / "nca-first/log.txt").read_text()
    return out, printed


@pytest.mark.slow
def test_both_runs_end_and_the_report_says_what_they_say(whole):
    out, printed = whole
    runs = {name: result(out, name) for name in ("text-only", "nca-first")}
    assert [(run["first"], run["of"], len(run["steps"])) for run in runs.values()] == [(0, 40, 40), (FIRST, ALL, ALL)]
    ends = [run["validations"][-1] for run in runs.values()]
    assert [end["tokens"] for end in ends] == [20_480, 20_480]
    assert f"{ends[0]['loss']:.4f}  {ends[1]['loss']:>10.4f}" in printed
    assert "it may be chance" in printed, "there are no stored seeds of this setting"
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "report.json").read_text())["nca_tokens"] == FIRST * 512
    assert runs["nca-first"]["nca"][-1]["nca/valid-cell-accuracy"] > 0.2
    assert max(runs["text-only"]["steps"]) < 7


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_end(whole, tmp_path):
    out, checkpoint = tmp_path / "out", tmp_path / "out/nca-first/checkpoint.pt"
    process = start(out)
    deadline = time.monotonic() + PATIENCE
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, _, errors = finish(out)
    assert code == 0, errors
    for name in ("text-only", "nca-first"):
        assert result(out, name)["steps"] == result(whole[0], name)["steps"]
        assert result(out, name)["validations"] == result(whole[0], name)["validations"]


@pytest.mark.slow
def test_the_runs_of_other_settings_are_not_touched(whole):
    code, _, errors = finish(whole[0], "--seed", "2")
    assert (code, errors.count("\n")) == (2, 1)
    assert "holds runs of other settings; give --out another folder" in errors


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("nca:grid=4", "give it tokens="),
        ("nca:tokens=1M,grid=one", "grid=one"),
        ("nca:tokens=1M,grid=4,colors=2,gzip=0.98-0.99", "compress to a ratio in it"),
    ],
)
def test_a_wrong_entry_is_one_line(tmp_path, entry, says):
    words = [sys.executable, "-m", "examples.quickstart", "--out", str(tmp_path / "out"), "--nca", entry]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_attention_in_halves_is_attention():
    from types import SimpleNamespace

    from examples.quickstart.model import BlockedAttention

    query, key, value = (torch.randn(32, 3, 4, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    attention = BlockedAttention(SimpleNamespace(hidden_size=32, num_attention_heads=4), layer_number=1)
    own = attention(query, key, value, None)
    heads = [part.permute(1, 2, 0, 3) for part in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True).permute(2, 0, 1, 3).reshape(32, 3, 32)
    torch.testing.assert_close(own, expected)
    weight = torch.randn_like(own)
    torch.testing.assert_close(
        torch.autograd.grad((own * weight).sum(), (query, key, value)),
        torch.autograd.grad((expected * weight).sum(), (query, key, value)),
    )


def test_a_token_is_copyable_where_its_three_predecessors_stood_before_it():
    sample = {"tokens": torch.tensor([1, 2, 3, 4, 9, 1, 2, 3]), "labels": torch.tensor([2, 3, 4, 9, 1, 2, 3, 4])}
    _, _, copyable = held_out_text([sample] * 128)
    assert copyable[0].tolist() == [False] * 7 + [True]


def test_the_text_is_written_once_and_read_by_megatron(tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    texts = ["def first():\n    return 1\n" * 20, "class Second:\n    pass\n" * 20]
    prefix, tokenizer = prepare(tmp_path, texts, vocabulary=300)
    stamp = Path(f"{prefix}.bin").stat().st_mtime_ns
    assert prepare(tmp_path, texts, vocabulary=300) == (prefix, tokenizer)
    assert Path(f"{prefix}.bin").stat().st_mtime_ns == stamp
    assert prepare(tmp_path, texts[:1], vocabulary=300)[0] != prefix
    library, documents = ByteLevelBPE(tokenizer), IndexedDataset(prefix)
    assert [library.detokenize(documents[place][:-1]) for place in range(2)] == texts
    assert all(documents[place][-1] == library.eod for place in range(2))


def found(end, stored, to_match=None):
    return {
        "rows": [{"tokens": 4_000_000, "text-only": 2.0, "nca-first": 2.0 * (1 + end / 100)}],
        "stored_differences_percent": stored,
        "text_to_match": to_match,
        "nca_tokens": 1_000_000,
    }


SEEDS = [-3.0, -4.0, -5.0, -3.5, -4.5]


@pytest.mark.parametrize(
    ("end", "stored", "says"),
    [
        (-4.2, SEEDS, "its loss is 4.2 % lower; 5 stored seeds"),
        (-0.1, SEEDS, "within the spread of seeds"),
        (+2.0, SEEDS, "within the spread of seeds"),
        (-4.2, [-4.0, 5.0, -3.0, 6.0], "within the spread of seeds"),
        (-8.0, [2.4, -0.4, -8.0, -0.2, -3.6], "within the spread of seeds"),
        (+4.2, [4.0, 4.1, 3.9], "HIGHER: NCA did not help"),
        (-4.2, [], "may be chance"),
        (-4.2, [-4.0], "may be chance"),
    ],
)
def test_nothing_within_the_spread_of_seeds_is_called_a_gain(end, stored, says):
    assert says in report.verdict(found(end, stored))


def test_text_saved_is_told_with_what_it_cost():
    told = report.verdict(found(-4.2, SEEDS, to_match=3_000_000.0))
    assert "3,000,000 tokens of text and 1,000,000 of NCA, instead of 4,000,000 of text" in told


def test_the_text_to_a_loss_lies_on_the_line_between_two_validations():
    curve = [{"tokens": 100, "loss": 4.0}, {"tokens": 200, "loss": 3.0}, {"tokens": 300, "loss": 2.0}]
    assert [report.tokens_at(curve, loss) for loss in (4.5, 4.0, 3.25, 2.0, 1.9)] == [100, 100, 175, 300, None]
    assert math.isclose(report.tokens_at(curve, 2.9), 210)
