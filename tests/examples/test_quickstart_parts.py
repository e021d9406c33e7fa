"""The quickstart's parts, one by one and without Megatron where they need none."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from examples.quickstart.cli import parse_arguments
from examples.quickstart.corpus import Document, read_documents
from examples.quickstart.files import replacing
from examples.quickstart.folder import claim, locked
from examples.quickstart.journal import Journal
from examples.quickstart.results import Comparison, Curve
from examples.quickstart.sampler import InOrderBatches
from examples.quickstart.settings import QuickstartError, Settings
from examples.quickstart.text import fingerprint_of, prepare_text
from megatron_nca.errors import EntryError
from tests.examples.quickstart_process import ROOT, environment

DOCUMENTS = [Document(f"{number}.py", f"def function_{number}():\n    return {number} * value\n" * 20) for number in range(30)]


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ("--heads 5", "heads=5"),
            ("--layers 0", "layers=0"),
            ("--lr 0", "lr=0"),
            ("--warmup 1", "warmup=1"),
            ("--workers -1", "workers=-1"),
            ("--checkpoint-every 0", "checkpoint_every=0"),
            ("--text-steps 0", "text_tokens=0"),
        ],
    )
    def test_a_wrong_value_is_named(self, arguments, named):
        with pytest.raises(QuickstartError, match=named):
            parse_arguments(arguments.split())

    @pytest.mark.parametrize(
        "arguments", ["--text-tokens many", "--seed x", "--lr high", "--text-tokens 1M --text-steps 9", "--step 9"]
    )
    def test_what_cannot_be_read_ends_the_program(self, arguments, capsys):
        with pytest.raises(SystemExit) as ended:
            parse_arguments(arguments.split())

        assert ended.value.code == 2
        assert arguments.split()[0] in capsys.readouterr().err

    @pytest.mark.parametrize("entry", ["nca:", "nca:tokens=10K,ramp=5K", "nca:tokens=10K,colours=3", "text"])
    def test_an_entry_that_is_no_phase_is_refused(self, entry):
        with pytest.raises(EntryError, match=entry):
            Settings(entry=entry)

    def test_steps_and_tokens_say_the_same(self):
        by_steps, _ = parse_arguments(["--text-steps", "100"])
        by_tokens, _ = parse_arguments(["--text-tokens", str(100 * by_steps.step_tokens)])

        assert by_steps == by_tokens

    @pytest.mark.parametrize(("ranks", "size"), [(1, 8), (2, 8), (4, 4), (16, 1)])
    def test_ranks_share_a_global_batch(self, ranks, size):
        assert Settings(global_batch=16).train_micro_batch(ranks) == size

    def test_ranks_that_cannot_share_a_global_batch_are_refused(self):
        with pytest.raises(QuickstartError, match="global_batch=16: must be a multiple of the 3 ranks"):
            Settings(global_batch=16).train_micro_batch(3)


class TestSampler:
    @pytest.mark.parametrize("ranks", [1, 2, 4])
    def test_a_global_batch_holds_the_same_samples_for_any_number_of_ranks(self, ranks):
        micro_batch = 8 // ranks
        shares = [list(InOrderBatches(16, 48, micro_batch, rank, ranks)) for rank in range(ranks)]

        together = [sorted(sample for share in shares for sample in share[batch]) for batch in range(len(shares[0]))]
        assert together == [list(range(begin, begin + 8)) for begin in range(16, 48, 8)]


class TestFiles:
    def test_a_failed_write_leaves_nothing(self, tmp_path):
        with pytest.raises(OSError, match="disk full"):
            _fail_halfway(tmp_path / "file")

        assert list(tmp_path.iterdir()) == []

    def test_a_failed_write_leaves_what_was_there(self, tmp_path):
        (tmp_path / "file").write_text("whole")
        with pytest.raises(OSError, match="disk full"):
            _fail_halfway(tmp_path / "file")

        assert (tmp_path / "file").read_text() == "whole"


def _fail_halfway(path):
    with replacing(path) as partial:
        partial.write_text("half")
        raise OSError("disk full")


class TestJournal:
    def test_rewinding_forgets_later_steps(self, tmp_path):
        journal = Journal(tmp_path / "journal.jsonl")
        for step in range(1, 6):
            journal.append({"step": step})

        journal.rewind(3)

        assert [entry["step"] for entry in journal.read()] == [1, 2, 3]

    def test_a_line_whose_writer_was_killed_is_forgotten(self, tmp_path):
        journal = Journal(tmp_path / "journal.jsonl")
        journal.append({"step": 1})
        with open(journal.path, "a") as file:
            file.write('{"step": 2, "lo')

        journal.rewind(2)

        assert journal.path.read_text() == '{"step": 1}\n'


class TestFolder:
    def test_other_settings_are_refused_with_both_sides(self, tmp_path):
        claim(tmp_path, Settings(lr=1e-3).to_dict(), fresh=False)

        with pytest.raises(QuickstartError, match=r"lr: 0\.001 there, 0\.002 here"):
            claim(tmp_path, Settings(lr=2e-3).to_dict(), fresh=False)

    def test_fresh_deletes_runs_of_other_settings(self, tmp_path):
        claim(tmp_path, Settings(lr=1e-3).to_dict(), fresh=False)
        (tmp_path / "baseline").mkdir()

        claim(tmp_path, Settings(lr=2e-3).to_dict(), fresh=True)

        assert not (tmp_path / "baseline").exists()
        assert json.loads((tmp_path / "settings.json").read_text())["lr"] == 2e-3

    @pytest.mark.parametrize("fresh", [False, True])
    def test_a_folder_of_somebody_elses_is_left_alone(self, tmp_path, fresh):
        (tmp_path / "thesis.tex").touch()

        with pytest.raises(QuickstartError, match=r"thesis\.tex"):
            claim(tmp_path, Settings().to_dict(), fresh)

    def test_two_processes_do_not_share_a_folder(self, tmp_path):
        with locked(tmp_path), pytest.raises(QuickstartError, match=str(os.getpid())), locked(tmp_path):
            pass


class TestCorpus:
    def test_the_order_is_the_same_every_time(self):
        assert [document.name for document in read_documents()] == [document.name for document in read_documents()]

    def test_documents_are_the_standard_librarys(self):
        names = {document.name for document in read_documents()}

        assert {"argparse.py", "json/decoder.py"} <= names
        assert not any(name.startswith(("test/", "site-packages/")) for name in names)


class TestText:
    def test_it_reads_back(self, tmp_path):
        from megatron.core.datasets.indexed_dataset import IndexedDataset

        text = prepare_text(tmp_path, 512, DOCUMENTS)

        indexed = IndexedDataset(text.prefix)
        assert len(indexed) == len(DOCUMENTS)
        assert text.tokenizer.detokenize(indexed[7]) == DOCUMENTS[7].text + "<|endoftext|>"

    def test_special_tokens_are_two_and_differ(self, tmp_path):
        tokenizer = prepare_text(tmp_path, 512, DOCUMENTS).tokenizer

        assert sorted(tokenizer.special_tokens_dict.values()) == [0, 1]

    def test_what_is_there_is_not_made_again(self, tmp_path):
        prepare_text(tmp_path, 512, DOCUMENTS)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}

        prepare_text(tmp_path, 512, DOCUMENTS)

        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before

    @pytest.mark.parametrize(
        ("documents", "vocab_size"), [(DOCUMENTS[1:], 512), ([*DOCUMENTS[1:], Document("0.py", "pass")], 512), (DOCUMENTS, 600)]
    )
    def test_other_inputs_are_another_text(self, documents, vocab_size):
        assert fingerprint_of(documents, vocab_size) != fingerprint_of(DOCUMENTS, 512)

    def test_an_index_is_not_there_before_its_data(self, tmp_path, monkeypatch):
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

        def fail(self, path):
            raise OSError("disk full")

        monkeypatch.setattr(IndexedDatasetBuilder, "finalize", fail)
        with pytest.raises(OSError, match="disk full"):
            prepare_text(tmp_path, 512, DOCUMENTS)

        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["tokenizer.json"]

    @pytest.mark.slow
    def test_killed_at_any_file_it_is_made_whole_the_next_time(self, tmp_path):
        undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
        prepare_text(undisturbed, 1024, read_documents()[:150])

        for name in ("", ".tokenizer.json.partial", "tokenizer.json", ".text.bin.partial", "text.bin"):
            _kill_text_when(killed, name)
        prepare_text(killed, 1024, read_documents()[:150])

        assert _contents(killed) == _contents(undisturbed)


def _kill_text_when(folder, name):
    """Start to prepare a text and kill that as soon as a file of this name is there, or soon after."""
    program = (
        "import sys, pathlib, megatron.core.datasets.indexed_dataset; "
        "from examples.quickstart.corpus import read_documents; from examples.quickstart.text import prepare_text; "
        "prepare_text(pathlib.Path(sys.argv[1]), 1024, read_documents()[:150])"
    )
    command = [sys.executable, "-c", program, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    while process.poll() is None and not any((home / name).exists() for home in folder.glob("*")):
        time.sleep(0.001)
    process.kill()
    assert process.wait() in (0, -signal.SIGKILL)


def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


class TestComparison:
    def compare(self, baseline, with_nca):
        def curve(losses):
            validations = [{"text_tokens": 100 * place, "loss": loss} for place, loss in enumerate(losses, 1)]
            return Curve("run", [], validations, {})

        return Comparison(curve(baseline), curve(with_nca))

    def test_text_to_match_lies_between_validations_in_proportion(self):
        assert self.compare([5.0, 4.0, 3.0], [4.0, 3.5, 2.5]).text_tokens_to_match == pytest.approx(250)

    def test_a_run_that_never_got_there_has_none(self):
        assert self.compare([5.0, 4.0, 3.0], [6.0, 5.0, 4.0]).text_tokens_to_match is None

    def test_a_run_that_was_there_at_its_first_validation_needed_no_more(self):
        assert self.compare([5.0, 4.0, 3.0], [2.9, 2.8, 2.7]).text_tokens_to_match == 100

    def test_changes_are_negative_where_nca_helped(self):
        row = self.compare([4.0], [3.0]).rows[0]

        assert row.loss_change == pytest.approx(-0.25)
        assert row.perplexity_change == pytest.approx(-0.632, abs=1e-3)
