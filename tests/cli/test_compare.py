"""``compare``: known answers of hand-made runs, the formats of the frameworks, and the page in a browser."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from megatron_nca.automaton.source import STREAM_VERSION
from megatron_nca.cli.runs.comparing import first_reached, margin_of, t_95
from megatron_nca.cli.runs.reading import read_run
from megatron_nca.data.amending import history_of
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.data.run import Datasets
from megatron_nca.training.record import Record
from tests.cli.test_gallery import browser

assert browser
LOG = Path(__file__).with_name("megatron_lm.log")
"""A log of Megatron-LM 0.16.1: ten steps of NCA, thirty of text, eight samples of 64 tokens each; some of its arguments."""
PLACES = [100_000 * place for place in range(1, 11)]


def write_csv(path, losses, nca=0, places=PLACES):
    rows = [f"{place},{nca},{loss:.6f}" for place, loss in zip(places, losses, strict=True)]
    path.write_text("\n".join(["text_tokens,nca_tokens,val_loss", *rows, ""]), encoding="utf-8")
    return path


def falling(start):
    """A loss that falls by one over a million tokens."""
    return [start - place / 1e6 for place in PLACES]


@pytest.fixture
def groups(tmp_path):
    """Three seeds of a run that is 0.1 better, and three of its baseline, 0.01 apart."""

    def write(name, start, nca=0):
        return [write_csv(tmp_path / f"{name}-{seed}.csv", falling(start + (seed - 2) / 100), nca) for seed in (1, 2, 3)]

    return {"run": write("nca", 3.9, 50_000), "baseline": write("text", 4.0), "same": write("same", 3.995, 50_000)}


def named(runs, baselines):
    return ["compare", "--run", *runs, "--baseline", *baselines]


def test_a_difference_beyond_the_spread_is_told_with_the_tokens_that_it_saves(succeed, command, groups):
    told = succeed(*named(groups["run"], groups["baseline"]))
    assert told["difference"] == pytest.approx([-0.1] * 10)
    assert told["verdict"] == "better"
    # The baseline ends at 3.0, which the run has at 900,000.
    assert told["saved"] == {
        "loss": pytest.approx(3.0), "baseline_tokens": 1_000_000, "run_tokens": 900_000, "text_tokens_saved": 100_000,
        "nca_tokens_spent": 50_000, "verdict": "better",
    }  # fmt: skip
    assert "100K fewer, for 50K NCA tokens" in command(*named(groups["run"], groups["baseline"]))[1]


def test_a_worse_run_is_called_so(succeed, command, groups):
    turned = named(groups["baseline"], groups["run"])
    assert succeed(*turned)["verdict"] == "worse"
    out = command(*turned)[1]
    assert "the run is worse by 0.1000" in out
    assert "does not reach the loss that the baseline ends with" in out


def test_what_lies_within_the_spread_is_never_called_a_gain(succeed, command, groups, tmp_path):
    words = named(groups["same"], groups["baseline"])
    assert succeed(*words)["verdict"] == "within the spread"
    _, out, _ = command(*words, "--html", tmp_path / "a.html")
    for said in (out, (tmp_path / "a.html").read_text(encoding="utf-8")):
        assert "lies within the spread of the seeds (3 against 3): no gain is shown" in said
        assert "better" not in said
        assert "fewer" not in said


def test_one_run_a_side_shows_nothing(succeed, command, groups):
    words = ["compare", groups["run"][0], groups["baseline"][0]]
    told = succeed(*words)
    assert told["margin"] is None
    assert told["verdict"] == "no spread known"
    out = command(*words)[1]
    assert "One run on each side" in out
    assert "better" not in out


def test_one_run_takes_its_baselines_spread(succeed, groups):
    told = succeed("compare", groups["run"][1], *groups["baseline"])
    assert told["verdict"] == "better"
    assert told["margin"] == pytest.approx([stats.t.ppf(0.975, 2) * 0.01 * (1 + 1 / 3) ** 0.5] * 10, rel=1e-3)


def test_the_margin_is_welchs():
    generator = np.random.default_rng(1)
    own, other = generator.normal(0, 0.01, (4, 5)), generator.normal(0, 0.05, (6, 5))
    exact = stats.ttest_ind(own, other, equal_var=False).confidence_interval(0.95)
    half = (exact.high - exact.low) / 2
    # Degrees of freedom are rounded down, so the margin is never the narrower.
    assert (margin_of(own, other) >= half - 1e-12).all()
    assert margin_of(own, other) == pytest.approx(half, rel=0.05)
    assert margin_of(own[:1], other[:1]) is None
    for freedom in (1, 2, 10, 30, 31, 100, 1000):
        assert t_95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.005)


def test_pairs_that_share_a_seed_are_compared_with_each_other(succeed, fail, groups, tmp_path):
    # Each 0.005 better than its own baseline, give or take 0.001; the baselines lie 0.01 apart.
    runs = [
        write_csv(tmp_path / f"pair-{seed}.csv", falling(3.995 + (seed - 2) / 100 + (seed - 2) / 1000)) for seed in (1, 2, 3)
    ]
    words = named(runs, groups["baseline"])
    assert succeed(*words)["verdict"] == "within the spread"
    told = succeed(*words, "--paired")
    assert told["verdict"] == "better"
    assert told["margin"] == pytest.approx([stats.t.ppf(0.975, 2) * 0.001 / 3**0.5] * 10, rel=1e-3)
    assert "are no pairs" in fail(*named(runs[:2], groups["baseline"]), "--paired")


def test_a_loss_is_reached_between_two_points():
    text, loss = np.array([0.0, 10.0, 20.0]), np.array([4.0, 3.0, 2.0])
    assert first_reached(text, loss, 2.5) == 15.0
    assert first_reached(text, loss, 4.5) == 0.0
    assert first_reached(text, loss, 1.0) is None


def test_runs_are_compared_where_all_have_read_text(succeed, tmp_path):
    long, short = write_csv(tmp_path / "a.csv", falling(4)), write_csv(tmp_path / "b.csv", falling(4)[2:6], places=PLACES[2:6])
    places = succeed("compare", long, short)["text_tokens"]
    assert (places[0], places[-1]) == (300_000, 600_000)


def test_a_log_of_megatron_lm_tells_nca_from_text():
    run = read_run(LOG)
    assert run.nca_tokens == 5_120
    assert run.plan.startswith("nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64 for 5,120 tokens")
    assert run.facts["seed"] == "1"
    assert [(point.text, point.nca) for point in run.validation] == [
        (0, 2560), (0, 5120), *((2560 * place, 5120) for place in range(1, 7))
    ]  # fmt: skip
    assert run.validation[-1].loss == 3.840762
    assert run.training[0] == (0, 512, 5.390625)
    assert read_run(LOG, 1024) == run, "--seq-length is for runs that do not tell theirs"


def test_the_record_of_the_last_checkpoint_tells_of_tokens_and_texts(tmp_path):
    plan = plan_training(read_blend((["nca:tokens=640,grid=4", "/data/a"], None)), 64, 40, BatchBoundaries(8))
    datasets = Datasets(None, 1, "83 ids from 0 to 82, digest 0123456789ab", ("40 sequences, index ba98",), history_of(plan))
    record = Record.of(plan, datasets, 40, True).state_dict()
    (tmp_path / "iter_0000005").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("5")
    torch.save({"args": SimpleNamespace(nca_curriculum=record)}, tmp_path / "iter_0000005/common.pt")
    log = re.sub(r"^  save \.+ None$", f"  save .... {tmp_path}", LOG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / "a.log").write_text(log, encoding="utf-8")
    facts = read_run(tmp_path / "a.log").facts
    assert facts["NCA tokens"] == datasets.tokens
    assert facts["texts"] == "40 sequences, index ba98"
    assert facts["stream"] == STREAM_VERSION


def test_a_log_without_its_arguments_is_refused(fail, tmp_path):
    lines = [line for line in LOG.read_text(encoding="utf-8").splitlines(keepends=True) if " ..." not in line]
    (tmp_path / "last_rank.log").write_text("".join(lines), encoding="utf-8")
    assert "has no table of arguments, which rank 0 prints" in fail("compare", tmp_path / "last_rank.log", LOG)


def write_events(folder, run, with_tokens):
    """Write a run as Megatron-LM's writers do: its arguments as text, every loss over steps and over samples."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, value in re.findall(r"^  (\w+) \.+ (.*)$", LOG.read_text(encoding="utf-8"), re.MULTILINE):
            writer.add_text(name, value, 0)
        for tag, points in (("lm loss", run.training), ("lm loss validation", run.validation)):
            for point in points:
                samples = (point.text + point.nca) // 64
                writer.add_scalar(tag, point.loss, samples // 8)
                if tag != "lm loss" and point == points[-1]:
                    # What Megatron-LM writes of the test set at its end.
                    writer.add_scalar(tag, 1.0, samples // 8)
                if with_tokens:
                    writer.add_scalar("text/tokens", point.text, samples // 8)
                    writer.add_scalar("nca/tokens", point.nca, samples // 8)
                else:
                    writer.add_scalar(f"{tag} vs samples", point.loss, samples)
    return folder


@pytest.mark.parametrize("with_tokens", [True, False])
def test_tensorboards_events_say_what_the_log_says(tmp_path, with_tokens):
    pytest.importorskip("tensorboard")
    of_log = read_run(LOG)
    found = read_run(write_events(tmp_path, of_log, with_tokens))
    for own, other in ((found.training, of_log.training), (found.validation, of_log.validation)):
        assert [point[:2] for point in own] == [point[:2] for point in other]
        assert [point.loss for point in own] == pytest.approx([point.loss for point in other])
    assert found.plan == of_log.plan


def test_nemos_table_has_its_losses_in_rows_of_their_own(tmp_path):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0/metrics.csv").write_text(
        "step,reduced_train_loss,val_loss,nca/tokens,text/tokens\n"
        "9,5.0,,1000,0\n19,4.0,,1000,1000\n19,,4.1,,\n29,3.0,,1000,2000\n29,,3.1,,\n",
        encoding="utf-8",
    )
    run = read_run(tmp_path)
    assert run.training == ((0, 1000, 5.0), (1000, 1000, 4.0), (2000, 1000, 3.0))
    assert run.validation == ((1000, 1000, 4.1), (2000, 1000, 3.1))


def test_samples_become_tokens_by_the_sequence_length(tmp_path):
    (tmp_path / "a.csv").write_text("step,consumed_samples,val_loss\n1,10,4\n2,20,3\n", encoding="utf-8")
    assert [point.text for point in read_run(tmp_path / "a.csv", 128).validation] == [1280, 2560]


def test_the_quickstarts_result_is_read(tmp_path):
    result = {
        "job": {"first": "nca:tokens=1K"}, "first": 2, "step_tokens": 512, "steps": [5.0, 4.0, 4.5, 3.5],
        "validations": [{"tokens": 512, "loss": 4.2}, {"tokens": 1024, "loss": 3.6}],
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    run = read_run(tmp_path)
    assert [point[:2] for point in run.training] == [(0, 512), (0, 1024), (512, 1024), (1024, 1024)]
    assert run.validation == ((512, 1024, 4.2), (1024, 1024, 3.6))


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        ("a,b\n1,2\n", "a.csv", "holds no loss"),
        ("step,val_loss\n1,2\n2,1\n", "a.csv", "does not tell the tokens of its steps"),
        ("step,consumed_samples,val_loss\n1,10,4\n2,20,3\n", "a.csv", "give --seq-length"),
        ("text/tokens,val_loss\n1,2\n", "a.csv", "a curve needs two"),
        ("{}", "a.json", "is no result of examples/quickstart"),
        ("hello", "a.log", "has no line of an iteration"),
        ("", "a.csv", "holds no loss"),
        ("text/tokens,val_loss\n5000000,2\n6000000,1\n", "a.csv", "no text tokens in common"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(fail, tmp_path, groups, content, name, says):
    (tmp_path / name).write_text(content, encoding="utf-8")
    message = fail("compare", tmp_path / name, groups["baseline"][0])
    assert says in message
    assert message.count("\n") == 1


def test_the_page_holds_everything_and_asks_for_nothing(browser, command, groups, tmp_path):
    evil = write_csv(tmp_path / "<script>alert(1)</script>.csv".replace("/", "_"), falling(3.9), 50_000)
    place = tmp_path / "page.html"
    code, out, _ = command(*named([*groups["run"], evil], groups["baseline"]), "--html", place)
    assert code == 0
    assert f"wrote {place}" in out
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(place.as_uri())
    assert page.locator("polyline.run.seed").count() == 4
    assert page.locator("polyline.baseline.seed").count() == 3
    assert page.locator("polyline.mean").count() == 2
    assert page.locator("polygon.margin").count() == 1
    assert "beyond the spread of the seeds (4 against 3)" in page.locator(".answer").inner_text()
    assert page.locator("table tr").count() == 9
    page.locator("summary").first.click()
    assert page.locator("dd").first.is_visible()
    widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
    assert said == []
    assert asked == [place.as_uri()]
    page.close()
