import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.data import corpus as module

SMALL = ("--tokens", "40K", "--seq-length", 128, "--vocab-size", 12_000)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "TOKENS_A_PART", 4096)


def files(prefix):
    return [Path(f"{prefix}{ending}").read_bytes() for ending in (".bin", ".idx")]


def gpt_dataset(prefix, sequence_length, samples, tmp_path):
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    from tests.conftest import Tokenizer

    config = GPTDatasetConfig(
        random_seed=7, sequence_length=sequence_length, path_to_cache=str(tmp_path / "cache"), tokenizer=Tokenizer(),
        blend=([str(prefix)], None), split="100,0,0", reset_position_ids=False, reset_attention_mask=False,
        eod_mask_loss=False, create_attention_mask=False,
    )  # fmt: skip
    return BlendedMegatronDatasetBuilder(GPTDataset, [samples, 0, 0], lambda: True, config).build()[0]


def test_a_gpt_dataset_over_the_files_yields_the_online_entrys_tokens(succeed, build, tmp_path, process_group):
    prefix = tmp_path / "nca"
    result = succeed("build", "nca:", *SMALL, "--eod", 5, "--special-ids", "0,1", "--output", prefix)
    online = build(["nca:"], sizes=(313, 0, 0), split="100,0,0")[0]
    expected = {tuple(online[place]["tokens"].tolist()) for place in range(313)}
    assert result["documents"] == len(expected) == 313
    # The last sample's last label would lie beyond the files, so Megatron leaves that sample out.
    offline = gpt_dataset(prefix, 128, 312, tmp_path)
    found = {tuple(offline[place]["tokens"].tolist()) for place in range(312)}
    assert len(found) == 312
    assert found < expected


def test_the_nth_document_is_the_nth_online_sample(succeed, build, tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    succeed("build", "nca:seed=3", *SMALL, "--eod", 5, "--special-ids", "0,1", "--output", tmp_path / "nca")
    stored = IndexedDataset(str(tmp_path / "nca"))
    online = build(["nca:seed=3"])[0]
    assert all(np.array_equal(stored[place], online[place]["tokens"]) for place in range(100))


def test_packed_documents_end_with_eod(succeed, build, tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    options = ("--tokens", "20K", "--seq-length", 256, "--vocab-size", 12_000, "--eod", 5, "--special-ids", "0,1")
    result = succeed("build", "nca:trajectory=128", *options, "--output", tmp_path / "nca")
    stored = IndexedDataset(str(tmp_path / "nca"))
    assert len(stored) == result["documents"] == 2 * 79
    online = build(["nca:trajectory=128"], sequence_length=256)[0][3]
    np.testing.assert_array_equal(np.concatenate([stored[6], stored[7]]), online["tokens"])
    assert stored[6][-1] == 5


def test_ids_beyond_two_bytes_are_stored_in_four(succeed, tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    succeed("build", "nca:vocab=offset:90000", "--tokens", "2K", "--vocab-size", 128_000, "--output", tmp_path / "nca")
    stored = IndexedDataset(str(tmp_path / "nca"))
    tokens = stored[0]
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, NCASource(NCAConfig(gzip=(0.5, 1.0))).tokens(0, 1024) + 90_000)


def test_several_processes_write_the_same_files(in_process, tmp_path):
    for processes in (1, 2):
        options = ("--tokens", "1.5M", "--processes", processes, "--output", tmp_path / f"nca{processes}")
        assert in_process("build", "nca:gzip=none", *options).returncode == 0
    assert files(tmp_path / "nca1") == files(tmp_path / "nca2")
    assert len(list(tmp_path.iterdir())) == 4, "nothing else is left behind"


@pytest.mark.parametrize("noted", [0, 1, 5])
def test_what_the_journal_does_not_note_is_written_again(succeed, tmp_path, small_parts, monkeypatch, noted):
    succeed("build", "nca:", *SMALL, "--output", tmp_path / "whole")
    write = module._write_part
    written = []

    def stop_after(corpus, number):
        if len(written) == noted:
            raise KeyboardInterrupt
        written.append(write(corpus, number))
        return number

    monkeypatch.setattr(module, "_write_part", stop_after)
    from megatron_nca.cli.main import main

    command = ["build", "nca:", *map(str, SMALL), "--output", str(tmp_path / "part")]
    assert main(command) == 130
    with open(tmp_path / "part.building", "ab") as journal:
        journal.write(b"9")  # as if a kill had cut a line short
    with open(tmp_path / "part.bin.partial", "r+b") as file:
        file.seek(4096 * 2 * noted)
        file.write(b"\xff" * 4096)
    again = []
    monkeypatch.setattr(module, "_write_part", lambda corpus, number: again.append(write(corpus, number)) or number)
    assert main(command) == 0
    assert again == list(range(noted, 10))
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_an_interruption_between_the_two_names_is_finished(succeed, tmp_path, monkeypatch):
    from megatron_nca.cli.main import main

    succeed("build", "nca:", *SMALL, "--output", tmp_path / "whole")
    replace = os.replace

    def stop_before_the_index(source, target):
        if str(target).endswith(".idx"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_before_the_index)
    command = ["build", "nca:", *map(str, SMALL), "--output", str(tmp_path / "part")]
    assert main(command) == 130
    assert (tmp_path / "part.bin").exists()
    assert not (tmp_path / "part.idx").exists()
    monkeypatch.setattr(os, "replace", replace)
    assert main(command) == 0
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def build_process(prefix, tokens, processes):
    words = ["build", "nca:", "--tokens", tokens, "--processes", str(processes), "--output", str(prefix)]
    return subprocess.Popen([sys.executable, "-m", "megatron_nca.cli", *words], stderr=subprocess.DEVNULL)


def kill_after(process, journal, lines):
    """Send SIGKILL once so many parts are noted; the first line describes the corpus."""
    deadline = time.monotonic() + 240
    while not (journal.exists() and journal.read_bytes().count(b"\n") > lines):
        assert process.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def digest(prefix):
    return [hashlib.sha256(content).hexdigest() for content in files(prefix)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ten_million_tokens_survive_sigkill_byte_for_byte(tmp_path, processes):
    assert build_process(tmp_path / "whole", "10M", 1).wait() == 0
    killed = tmp_path / "killed"
    for lines in (2, 9):
        kill_after(build_process(killed, "10M", processes), tmp_path / "killed.building", lines)
        assert not Path(f"{killed}.idx").exists()
        assert not Path(f"{killed}.bin").exists()
    assert build_process(killed, "10M", processes).wait() == 0
    assert digest(killed) == digest(tmp_path / "whole")
    assert not Path(f"{killed}.building").exists()


def test_an_unfinished_corpus_of_other_settings_is_not_overwritten(fail, tmp_path, small_parts, monkeypatch):
    def stop(corpus, number):
        raise OSError("disk full")

    prefix = tmp_path / "nca"
    with monkeypatch.context() as patched:
        patched.setattr(module, "_write_part", stop)
        assert "disk full" in fail("build", "nca:", *SMALL, "--output", prefix)
    message = fail("build", "nca:", *SMALL, "--seed", 2, "--output", prefix)
    assert '"seed": 1234' in message
    assert '"seed": 2' in message


def test_a_corpus_that_another_process_builds_is_left_alone(fail, tmp_path):
    import fcntl

    with open(tmp_path / "nca.building", "wb") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert "another process is building" in fail("build", "nca:", *SMALL, "--output", tmp_path / "nca")


def test_a_finished_corpus_is_not_overwritten(succeed, fail, tmp_path):
    succeed("build", "nca:", *SMALL, "--output", tmp_path / "nca")
    before = files(tmp_path / "nca")
    assert "is there already" in fail("build", "nca:", *SMALL, "--output", tmp_path / "nca")
    assert files(tmp_path / "nca") == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nca:"], "Give --tokens"),
        (["nca:colours=3", "--tokens", "1M"], "is no key of an entry"),
        (["nca:", "--tokens", "1M", "--vocab-size", "5000"], "do not fit the tokenizer"),
        (["nca:trajectory=100", "--tokens", "1M", "--seq-length", "128"], "is no multiple of trajectory=100"),
        (["nca:", "--tokens", "1M", "--seq-length", "20"], "use sequences of at least 76"),
        (["nca:gzip=0.98-0.99", "--tokens", "1M"], "0 of 1,600 random rules"),
        (["nca:", "--tokens", "1M", "--processes", "0"], "must be at least 1"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(fail, tmp_path, arguments, problem):
    assert problem in fail("build", *arguments, "--output", tmp_path / "nca")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist_is_refused(fail):
    assert "there is no folder" in fail("build", "nca:", "--tokens", "1M", "--output", "/no/such/folder/nca")
