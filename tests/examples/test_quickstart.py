"""The quickstart as a whole: one uninterrupted run is the yardstick for runs that are killed, or shared between ranks."""

import json

import pytest

from tests.examples.quickstart_process import (
    CHECKPOINT_EVERY,
    LAST_STEP,
    SWITCH_STEP,
    copy_without_runs,
    finish,
    kill_when,
    latest_step,
    read_entries,
    written_steps,
)

pytestmark = pytest.mark.slow
RUNS = ("with-nca", "baseline")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    printed = finish(out)
    (out / "printed.txt").write_text(printed)
    return out


def test_a_run_is_nca_and_then_text(uninterrupted):
    sources = [entry["source"] for entry in read_entries(uninterrupted, "with-nca", "steps")]

    assert sources == ["nca"] * SWITCH_STEP + ["text"] * (LAST_STEP - SWITCH_STEP)


def test_both_runs_read_the_same_text_in_the_same_order(uninterrupted):
    with_nca, baseline = (read_entries(uninterrupted, run, "steps") for run in RUNS)

    digests = [[entry["samples_digest"] for entry in run if entry["source"] == "text"] for run in (with_nca, baseline)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == LAST_STEP - SWITCH_STEP


def test_both_runs_have_the_same_learning_rate_on_text(uninterrupted):
    with_nca, baseline = (read_entries(uninterrupted, run, "steps") for run in RUNS)

    assert [entry["lr"] for entry in with_nca[SWITCH_STEP:]] == pytest.approx([entry["lr"] for entry in baseline])


def test_both_runs_are_validated_after_the_same_text(uninterrupted):
    with_nca, baseline = (read_entries(uninterrupted, run, "validations") for run in RUNS)

    assert [entry["text_tokens"] for entry in with_nca] == [1024, 2048, 3072, 3328]
    assert [entry["text_tokens"] for entry in baseline] == [1024, 2048, 3072, 3328]


def test_the_report_says_what_the_journals_say(uninterrupted):
    final = {run: read_entries(uninterrupted, run, "validations")[-1]["loss"] for run in RUNS}

    assert json.loads((uninterrupted / "results.json").read_text())["final_loss"] == final
    printed = (uninterrupted / "printed.txt").read_text().split()
    assert [f"{final['baseline']:.4f}", f"{final['with-nca']:.4f}"] == printed[printed.index("3,328") + 1 :][:2]


def test_the_pictures_are_pictures(uninterrupted):
    for name in ("loss.png", "trajectories.png"):
        assert (uninterrupted / name).read_bytes().startswith(b"\x89PNG")


def test_two_checkpoints_are_kept(uninterrupted):
    folder = uninterrupted / "with-nca" / "checkpoints"

    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-000020", "step-000024"]


@pytest.mark.parametrize(
    ("reached", "resumes_at"),
    [
        pytest.param(lambda out: written_steps(out, "with-nca") >= 7, CHECKPOINT_EVERY, id="in the NCA phase"),
        pytest.param(lambda out: latest_step(out, "with-nca") == SWITCH_STEP, SWITCH_STEP, id="at the switch"),
        pytest.param(lambda out: written_steps(out, "with-nca") >= 17, 15, id="in the text"),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(uninterrupted, tmp_path, reached, resumes_at):
    out = copy_without_runs(uninterrupted, tmp_path / "out")
    kill_when(out, lambda: reached(out))
    assert latest_step(out, "with-nca") == resumes_at

    finish(out)

    for run in RUNS:
        for journal in ("steps", "validations"):
            assert read_entries(out, run, journal) == read_entries(uninterrupted, run, journal)


def test_two_ranks_train_on_the_same_samples(uninterrupted, tmp_path):
    out = copy_without_runs(uninterrupted, tmp_path / "out")

    finish(out, ranks=2)

    for run in RUNS:
        one, two = (read_entries(folder, run, "steps") for folder in (uninterrupted, out))
        assert [entry["samples_digest"] for entry in two] == [entry["samples_digest"] for entry in one]
        assert [entry["loss"] for entry in two] == pytest.approx([entry["loss"] for entry in one], abs=2e-3)


def test_a_finished_run_is_reported_again_without_training(uninterrupted):
    journal = uninterrupted / "with-nca" / "steps.jsonl"
    before = journal.stat().st_mtime_ns

    printed = finish(uninterrupted)

    assert journal.stat().st_mtime_ns == before
    assert "NCA first was ahead" in printed
