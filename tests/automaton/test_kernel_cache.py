"""Whatever is wrong with the folder of compiled kernels, a process makes the right tokens."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.kernel_cache import ForgivingCache, forgiving_cache, untrusted

ROOT = Path(__file__).parents[2]
SHOW_TOKENS = """
from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.production import produce
print(NCASource(NCAConfig(gzip=(0.5, 1.0))).tokens(3, 200).tolist())
print(produce.stats.cache_hits.total())
"""


def tokens_of_a_process(folder):
    """Return the tokens that a fresh process makes with this cache folder, and how many kernels it found there."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    output = subprocess.run([sys.executable, "-c", SHOW_TOKENS], check=True, capture_output=True, env=environment, text=True)
    assert not output.stderr
    tokens, hits = output.stdout.splitlines()
    return tokens, int(hits)


@pytest.fixture(scope="module")
def expected():
    return str(NCASource(NCAConfig(gzip=(0.5, 1.0)), engine="reference").tokens(3, 200).tolist())


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    tokens_of_a_process(folder)
    return folder


@pytest.fixture
def copied(warm, tmp_path):
    shutil.copytree(warm, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.slow
def test_a_second_process_compiles_nothing(warm, expected):
    assert tokens_of_a_process(warm) == (expected, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "content"), [("nbi", b"not a pickle"), ("nbi", None), ("nbc", b""), ("nbc", None)])
def test_a_damaged_file_costs_one_compilation(copied, expected, kind, content):
    damaged = list(copied.rglob(f"*.{kind}"))
    assert len(damaged) == 1
    for path in damaged:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert tokens_of_a_process(copied) == (expected, 0)
    assert tokens_of_a_process(copied) == (expected, 1)


@pytest.mark.slow
def test_a_folder_that_does_not_exist_is_made(tmp_path, expected):
    assert tokens_of_a_process(tmp_path / "not" / "there")[0] == expected
    assert list((tmp_path / "not" / "there").rglob("*.nbc"))


def test_a_folder_that_cannot_be_written(tmp_path, expected):
    """Below a regular file, which refuses even the superuser."""
    (tmp_path / "file").touch()
    assert tokens_of_a_process(tmp_path / "file" / "folder")[0] == expected


class Failing:
    """A cache on a file system that has gone."""

    cache_path = "/gone"

    flushed = 0

    def load_overload(self, signature, target_context):
        raise OSError(116, "Stale file handle")

    def flush(self):
        self.flushed += 1

    def save_overload(self, signature, data):
        raise OSError(28, "No space left on device")


def test_failures_are_as_if_nothing_had_been_cached(caplog):
    cache = ForgivingCache(Failing())
    with caplog.at_level(logging.DEBUG):
        assert cache.load_overload(None, None) is None
        assert cache.save_overload(None, None) is None
    assert "Stale file handle" in caplog.text
    assert "No space left" in caplog.text


def raise_end_of_file(signature, target_context):
    raise EOFError("file cut short")


def test_only_a_damaged_index_is_emptied():
    gone, damaged = Failing(), Failing()
    damaged.load_overload = raise_end_of_file
    assert ForgivingCache(gone).load_overload(None, None) is None
    assert ForgivingCache(damaged).load_overload(None, None) is None
    assert (gone.flushed, damaged.flushed) == (0, 1)


def test_what_else_a_cache_has_stays_in_reach():
    assert ForgivingCache(Failing()).cache_path == "/gone"


class Dispatcher:
    """As much of a numba function as the cache touches."""

    def __init__(self, error=None):
        self._cache, self.error, self.enabled = None, error, 0

    def enable_caching(self):
        if self.error:
            raise self.error
        self._cache = Failing()
        self.enabled += 1


def test_a_function_gets_one_cache():
    function = Dispatcher()
    forgiving_cache(function)
    forgiving_cache(function)
    assert function.enabled == 1
    assert isinstance(function._cache, ForgivingCache)


@pytest.mark.parametrize("error", [RuntimeError("no locator available"), OSError(30, "Read-only file system")], ids=repr)
def test_a_function_without_a_folder_stays_without_a_cache(error):
    function = Dispatcher(error)
    forgiving_cache(function)
    assert function._cache is None


@pytest.fixture
def kernels(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o755)
    for name in ("produce.nbi", "produce.1.nbc"):
        (folder / name).touch(mode=0o644)
    return folder


def belongs_to_another(path, monkeypatch):
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)


def test_a_folder_of_ones_own_is_used(kernels):
    assert untrusted(kernels) is None
    assert untrusted(kernels / "not" / "there") is None


@pytest.mark.parametrize("spoilt", [".", "produce.nbi", "produce.1.nbc", ".."])
def test_what_others_can_write_is_not_run(kernels, spoilt):
    (kernels / spoilt).chmod(0o777)
    assert "can be written by others" in untrusted(kernels)


def test_a_folder_above_may_be_open_where_nobody_can_rename_what_is_not_theirs(kernels):
    kernels.parent.chmod(0o1777)
    assert untrusted(kernels) is None


@pytest.mark.parametrize("spoilt", [".", "produce.nbi", "produce.1.nbc"])
def test_what_another_owns_is_not_run(kernels, spoilt, monkeypatch):
    belongs_to_another(kernels / spoilt, monkeypatch)
    assert "belongs to user" in untrusted(kernels)


def test_a_link_is_followed_to_where_the_code_lies(kernels, tmp_path):
    (tmp_path / "link").symlink_to(kernels)
    kernels.chmod(0o777)
    assert str(kernels) in untrusted(tmp_path / "link")


def test_code_planted_in_an_open_folder_is_not_loaded(kernels, caplog):
    kernels.chmod(0o777)
    cache = ForgivingCache(Planted(kernels))
    with caplog.at_level(logging.WARNING):
        assert cache.load_overload(None, None) is None
        cache.save_overload(None, None)
    assert "is not used, since it holds code" in caplog.text
    assert "mktemp -d" in caplog.text


class Planted:
    """A cache that must not be asked."""

    def __init__(self, folder):
        self.cache_path = str(folder)

    def load_overload(self, signature, target_context):
        raise AssertionError("planted code was loaded")

    def save_overload(self, signature, data):
        raise AssertionError("the folder was used")


@pytest.mark.parametrize(
    "program",
    [
        "from megatron_nca import NCAConfig, NCASource; NCASource(NCAConfig())",
        "from megatron_nca.automaton.complexity import gzip_size; gzip_size(b'abc')",
    ],
)
def test_numba_turned_off_is_one_error(program):
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    [last] = ended.stderr.splitlines()[-1:]
    assert last.startswith("megatron_nca.errors.EnvironmentMismatchError: NUMBA_DISABLE_JIT is set")


def test_the_command_line_says_so_too():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    words = [sys.executable, "-m", "megatron_nca.cli", "preview", "nca:grid=4"]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "NUMBA_DISABLE_JIT is set" in ended.stderr
    assert "Traceback" not in ended.stderr
