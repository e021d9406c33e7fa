"""Odd inputs to every command: one line that says what is wrong, the right exit code, and nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from megatron_nca.cli.main import COMMANDS
from megatron_nca.workers import end_with

RUN = ["--seq-length", "1024", "--global-batch-size", "8", "--train-iters", "100"]
PLAN = ["plan", "--data-path", "nca:tokens=100K", "/a", *RUN]
BUILD = ["build", "nca:gzip=none", "--tokens", "10K"]
TEXT = "{text}"
LONG = "x" * 300
HUGE = "9" * 30

# What is typed, the exit code, and words of the one line.
ODD = [
    # Empty values.
    (["preview", ""], 2, "must start with 'nca:'"),
    (["inspect", ""], 2, "must start with 'nca:'"),
    (["build", "", "--tokens", "1K", "--output", "{folder}/a"], 2, "must start with 'nca:'"),
    (["bench", ""], 2, "must start with 'nca:'"),
    (["preview", "nca:", "--output", ""], 2, "must name a file"),
    (["preview", "nca:", "--html", ""], 2, "must name a file"),
    ([*PLAN, "--output", ""], 2, "must name a file"),
    (["calibrate", TEXT, "--output", ""], 2, "must name a file"),
    ([*BUILD, "--output", ""], 2, "must name what stands before .bin and .idx"),
    (["calibrate", ""], 2, "no tokenised text there"),
    (["plan", "--data-path", "", *RUN], 1, "no nca: entry"),
    (["plan", "--data-path"], 2, "expected at least one argument"),
    (["transfer", "--load", "", "--save", "{folder}/b"], 2, "no checkpoint of Megatron-LM"),
    (["rehearse"], 2, "give a launch after --"),
    (["rehearse", "--"], 2, "give a launch after --"),
    ([], 2, "COMMAND"),
    ([""], 2, "invalid choice: ''"),
    # Folders for files, files for folders.
    (["preview", "nca:", "--output", "{folder}"], 2, "is a folder"),
    (["preview", "nca:", "--html", "{folder}"], 2, "is a folder"),
    (["calibrate", TEXT, "--output", "{folder}"], 2, "is a folder"),
    ([*PLAN, "--output", "{folder}"], 2, "is a folder"),
    (["calibrate", "{folder}"], 2, "no tokenised text there"),
    (["inspect", "nca:", "--tokenizer", "{folder}"], 2, "cannot be read"),
    (["plan", "--data-args-path", "{folder}", *RUN], 2, "cannot be read"),
    (["transfer", "--load", "{file}", "--save", "{folder}/b"], 2, "no checkpoint of Megatron-LM"),
    (["rehearse", "--folder", "{file}", "--", "-m", "megatron_nca", "pretrain_gpt.py"], 2, "is in no checkout"),
    # Wrong endings, places that are none.
    (["preview", "nca:", "--output", "{folder}/a.jpg"], 2, "must end with .png or .gif"),
    (["preview", "nca:", "--output", "{folder}/a"], 2, "must end with .png or .gif"),
    (["preview", "nca:", "--html", "{folder}/a.png"], 2, "must end with .html"),
    ([*PLAN, "--output", "{folder}/a.svg"], 2, "must end with .png"),
    (["calibrate", TEXT, "--output", "{folder}/a.pdf"], 2, "must end with .png"),
    (["preview", "nca:", "--output", "{folder}/none/a.png"], 2, "make it first"),
    (["calibrate", TEXT, "--output", "{folder}/none/a.png"], 2, "make it first"),
    ([*BUILD, "--output", "{folder}/none/a"], 2, "make it first"),
    (["transfer", "--load", "{folder}", "--save", "{folder}/none/b"], 2, "make it first"),
    (["preview", "nca:", "--output", "{file}/a.png"], 2, "make it first"),
    (["preview", "nca:", "--output", "{folder}/" + LONG + ".png"], 2, "the name is too long"),
    ([*BUILD, "--output", "{folder}/" + LONG], 2, "the name is too long"),
    # Names that do not exist.
    (["calibrate", "/none/text"], 2, "no tokenised text there"),
    (["inspect", "nca:domain=auto:/none/text"], 2, "no tokenised text there"),
    (["inspect", "nca:", "--tokenizer", "/none"], 2, "cannot be read"),
    (["plan", "--checkpoint", "/none"], 2, "no checkpoint of"),
    (["plan", "--per-split-data-args-path", "/none", *RUN], 2, "cannot be read"),
    (["rehearse", "--", "/none.sh"], 2, "/none.sh"),
    (["transfer", "--load", "/none", "--save", "{folder}/b"], 2, "no checkpoint of Megatron-LM"),
    # Bytes that are no text.
    (["preview", "nca:grid=\udcff"], 2, "grid=\\udcff: is not a whole number"),
    (["calibrate", "/none/\udcff"], 2, "\\udcff"),
    (["preview", "nca:grid=1\n2"], 2, "grid=1\\n2: is not a whole number"),
    (["preview", "nca:\x1b[31m"], 2, "\\x1b[31m"),
    (["plan", "--data-path", "nca:tokens=1K,seed=\udc80", "/a", *RUN], 1, "\\udc80"),
    # Runs that are none.
    (["compare"], 2, "give a run and a baseline"),
    (["compare", ""], 2, "give a run and a baseline"),
    (["compare", "{folder}", "{file}"], 2, "holds no events of TensorBoard"),
    (["compare", "{file}", "{file}"], 2, "stands on both sides"),
    (["compare", "{file}", "--run", "{file}"], 2, "name the runs one way"),
    (["compare", "{file}", "/none", "--html", "{folder}"], 2, "is a folder"),
    (["compare", "/none", "{file}"], 2, "cannot be read"),
    # Numbers: huge, negative, none.
    (["preview", "nca:", "--rules", HUGE], 2, "is not a count"),
    (["preview", "nca:", "--rules", "1T"], 2, "at most 64"),
    (["preview", "nca:", "--frames", "1M"], 2, "at most 400"),
    (["preview", "nca:", "--rules", "-1"], 2, "--rules"),
    (["preview", "nca:", "--first", "999T", "--text"], 2, "must lie in [0, 2**48)"),
    (["preview", "nca:", "--seed", "nan"], 2, "is not a count"),
    (["preview", "nca:gzip=nan-1"], 2, "is not a band"),
    (["inspect", "nca:", "--rules", "1T"], 2, "at most 100,000"),
    (["inspect", "nca:", "--samples", "1T"], 2, "at most 1,000"),
    (["inspect", "nca:", "--seq-length", "1T"], 2, "at most 16,777,216"),
    (["inspect", "nca:", "--vocab-size", "0"], 2, "at least 1"),
    (["calibrate", TEXT, "--rules", "1T"], 2, "at most 1,000,000"),
    (["bench", "nca:", "--seconds", "nan"], 2, "must be a finite number"),
    (["bench", "nca:", "--seconds", "-1"], 2, "must lie above 0"),
    (["bench", "nca:", "--processes", "1M"], 2, "at most 1,024"),
    (["bench", "nca:", "--seq-length", "0"], 2, "at least 1"),
    ([*BUILD, "--output", "{folder}/a", "--processes", "1M"], 2, "at most 1,024"),
    (["build", "nca:gzip=none", "--tokens", "999P", "--output", "{folder}/a"], 2, "is not a count"),
    (["build", "nca:gzip=none", "--tokens", "500000T", "--output", "{folder}/a"], 2, "are left there"),
    (["build", "nca:gzip=none", "--tokens", "0", "--output", "{folder}/a"], 2, "at least 1"),
    ([*PLAN, "--lr", "nan"], 2, "must be a finite number"),
    ([*PLAN, "--lr", "1", "--lr-warmup-fraction", "inf"], 2, "must be a finite number"),
    ([*PLAN, "--lr", "-1"], 2, "--lr"),
    ([*PLAN, "--nca-lr", "nan"], 1, "must be a finite number"),
    ([*PLAN, "--split", "0,0,0"], 2, "must be three numbers"),
    ([*PLAN, "--split", "a"], 2, "must be three numbers"),
    ([*PLAN[:-6], "--seq-length", "0", *RUN[2:]], 2, "at least 1"),
    ([*PLAN[:-6], "--seq-length", "1024", "--global-batch-size", "-8"], 2, "--global-batch-size"),
    (
        [*PLAN[:-2], "--train-samples", "9M", "--global-batch-size", "1B", "--rampup-batch-size", "1", "1", "9M"],
        2,
        "larger increment",
    ),
    (["transfer", "--load", "{folder}", "--save", "{folder}/b", "--init-method-std", "nan"], 2, "must be a finite number"),
    (["rehearse", "--nodes", "0", "--", "x.args"], 2, "at least 1"),
    # Abbreviations, wrong words, contradictions.
    (["--vers"], 2, "COMMAND"),
    (["preview", "nca:", "--rul", "3"], 2, "--rul"),
    ([*PLAN, "--nca-reini", "none"], 2, "did you mean --nca-reinit?"),
    (["doctor", "--fingerprints"], 2, "did you mean --fingerprint?"),
    (["bench", "--all", "--json"], 2, "leave out --json"),
    (["preview", "nca:", "nca:"], 2, "unrecognized arguments: nca:"),
    (["inspect", "nca:", "--tokenizer", "x", "--vocab-size", "9"], 2, "leave out --vocab-size"),
    (["inspect", "nca:", "--eod", "999999"], 2, "outside the vocabulary"),
    (["inspect", "nca:", "--special-ids", "1,x"], 2, "must be ids"),
    (["inspect", "nca:", "--split", "trian"], 2, "did you mean train?"),
]  # fmt: skip
"""Surrogates stand for bytes that are no UTF-8, as Python reads a command line."""


@pytest.fixture
def text(tmp_path_factory):
    from tests.conftest import write_text

    return write_text(tmp_path_factory.mktemp("text") / "a", 100)


def test_there_are_many_and_every_command_has_some():
    assert len(ODD) >= 60
    assert {words[0] for words, _, _ in ODD if words} >= set(COMMANDS)


@pytest.fixture
def places(tmp_path, text):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("x")
    return {"folder": str(folder), "file": str(file), "text": text}


def placed(words, places):
    return [word.format(**places) if "{" in word else word for word in words]


@pytest.mark.parametrize(("words", "code", "says"), ODD, ids=[f"{' '.join(words)[:60]!a}" for words, _, _ in ODD])
def test_an_odd_input_is_one_line(command, places, tmp_path, words, code, says):
    before = sorted(tmp_path.rglob("*"))
    found, out, err = command(*placed(words, places))
    if words[:2] == ["plan", "--data-path"] and says == "no nca: entry":
        err = out[out.index("bad plan: ") :]
    assert found == code, err
    assert len(err.strip().splitlines()) == 1, err
    assert says in err
    assert sorted(tmp_path.rglob("*")) == before


FOR_MACHINES = [(words, code) for words, code, _ in ODD if words and words[0] in COMMANDS and not {"--json", "--"} & {*words}]


@pytest.mark.parametrize(("words", "code"), FOR_MACHINES)
def test_machines_get_one_object(command, places, words, code):
    found, out, _ = command(*placed(words, places), "--json")
    assert found in (code, 2)
    assert isinstance(json.loads(out), dict)


def shell(line, folder, timeout=120, **variables):
    """Run a line of a shell; returns (exit code of the last command, stdout, stderr)."""
    program = f"{sys.executable} -m megatron_nca.cli"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("megatron-nca", program)], capture_output=True, text=True, cwd=folder,
        timeout=timeout, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


LINE = " ".join(["megatron-nca", *PLAN])
STREAMS = {
    "a reader that has gone": (f"{LINE} | head -0", 141, ""),
    "a reader that wants one line": (f"{LINE} | head -1", 141, ""),
    "a full disk": (f"{LINE} > /dev/full", 2, "megatron-nca: error: standard output: No space left on device"),
    "no output": (f"{LINE} >&-", 2, "megatron-nca: error: standard output is closed"),
    "no errors": (f"{LINE} 2>&- >/dev/null", 0, ""),
    "no input": (f"{LINE} <&- >/dev/null", 0, ""),
    "no errors, and an error": ("megatron-nca preview x 2>&-", 2, ""),
    "help for nobody": ("megatron-nca --help | head -0", 141, ""),
}


@pytest.mark.parametrize(("line", "code", "says"), STREAMS.values(), ids=STREAMS)
def test_streams_that_are_closed_or_full(tmp_path, line, code, says):
    found, _, err = shell(line, tmp_path)
    # A short text may have been written before the reader had gone.
    assert found == code or (code == 141 and found == 0)
    assert err.startswith(says)
    assert len(err.splitlines()) == bool(says)


@pytest.mark.parametrize(
    "line", ["--help", "plan --help", " ".join(PLAN), "preview nca: --text --rules 1", "doctor", "preview x"]
)
def test_a_narrow_terminal_breaks_nothing(tmp_path, line):
    code, out, err = shell(f"megatron-nca {line}", tmp_path, COLUMNS="20")
    assert code in (0, 1, 2)
    assert "Traceback" not in err
    assert out or err


@pytest.fixture
def full_disk(tmp_path):
    """A file system of a few pages."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["preview", "nca:", "--output", "{}/a.png"], "a.png"),
        (["preview", "nca:", "--output", "{}/a.gif"], "a.gif"),
        ([*PLAN, "--lr", "1", "--output", "{}/a.png"], "a.png"),
        (["calibrate", TEXT, "--rules", "100", "--output", "{}/a.png"], "a.png"),
        (["build", "nca:gzip=none", "--tokens", "1M", "--output", "{}/a"], "a.bin"),
    ],
)
def test_a_disk_without_room_is_told_with_the_file_and_nothing_stays(command, full_disk, text, words, name):
    code, _, err = command(*(word.replace("{}", str(full_disk)).replace(TEXT, text) for word in words))
    assert code == 2
    # A bar may stand before it.
    line = err.strip().splitlines()[-1]
    assert f"{full_disk}/{name}: " in line
    assert "No space left on device" in line or "are left there" in line
    assert not list(full_disk.iterdir())


def test_a_pipe_is_not_replaced(fail, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "is no ordinary file" in fail("preview", "nca:", "--output", tmp_path / "a.png")


def test_a_link_stays_one(command, tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    assert command("preview", "nca:", "--rules", "1", "--output", tmp_path / "a.png")[0] == 0
    assert (tmp_path / "a.png").is_symlink()
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(fail, tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written to" in fail("preview", "nca:", "--output", tmp_path / "a.png")


def test_an_option_that_is_given_twice_counts_as_megatron_counts_it(succeed):
    assert succeed(*PLAN[:-1], "100", "--train-iters", "50")["iterations"] == 50


LONG_WORK = {
    "in a kernel": ["inspect", "nca:gzip=none,grid=24,dt=20", "--rules", "100K"],
    "of a search": ["preview", "nca:gzip=0.65-0.66,rare=yes", "--rules", "64", "--text"],
    "of rules": ["calibrate", TEXT, "--rules", "1M"],
    "of workers": ["build", "nca:", "--tokens", "100M", "--processes", "2", "--output", "{folder}/a"],
    "of measuring": ["bench", "nca:", "--seconds", "300", "--processes", "2"],
}


INTERRUPTED = (128 + signal.SIGINT, -signal.SIGINT)
"""Python ends by the signal where it came while a text was executed, as numba and dataclasses do; for a shell it is one."""


@pytest.fixture
def start(places):
    """Starts a command in a group of its own, which ends with the test, and with pytest where that is killed."""
    started = []

    def begin(words, **variables):
        started.append(subprocess.Popen(
            [sys.executable, "-m", "megatron_nca.cli", *placed(words, places)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, env={**os.environ, **variables}, preexec_fn=_as_in_a_terminal,
        ))  # fmt: skip
        return started[-1]

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _as_in_a_terminal():
    # A shell has its background jobs ignore Ctrl-C, and so all that they start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with(None)


def children(process):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(number) for number in found.stdout.split()]


def cpu_seconds(process):
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_work(process, seconds=1.5):
    """Wait until it has worked for so long, start-up with it, or has workers that have."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(FileNotFoundError):
            if max(map(cpu_seconds, [process.pid, *children(process.pid)])) > seconds:
                return
        time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("words", LONG_WORK.values(), ids=LONG_WORK)
def test_ctrl_c_ends_long_work_at_once(words, start):
    process = start(words)
    wait_for_work(process)
    # As the terminal does: to the whole group.
    os.killpg(process.pid, signal.SIGINT)
    begin = time.monotonic()
    _, err = process.communicate(timeout=60)
    took = time.monotonic() - begin
    assert process.returncode in INTERRUPTED, err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].endswith("megatron-nca: interrupted")
    # Alone on a core it is a quarter of a second; what is looked for is work that does not hear it, which takes minutes.
    assert took < 20, took


def test_ctrl_c_ends_a_compilation(start, tmp_path):
    process = start(["inspect", "nca:"], NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    wait_for_work(process, 5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in INTERRUPTED, err
    assert err.splitlines()[-1] == "megatron-nca: interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_workers_end_when_their_parent_is_killed(start):
    process = start(LONG_WORK["of workers"])
    workers = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(workers) < 2:
        time.sleep(0.1)
        # Python's own tracker of resources is a child, too, and ends by itself.
        workers = [child for child in children(process.pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(workers) >= 2
    time.sleep(2)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        time.sleep(0.1)
    left = [worker for worker in workers if Path(f"/proc/{worker}").exists() and cpu_state(worker) != "Z"]
    assert not left


def cpu_state(process):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_nothing_of_numba_is_loaded_for_a_plan_of_the_papers_process():
    ask = "print('numba' in sys.modules, 'torch' in sys.modules)"
    code = f"import sys; from megatron_nca.cli.main import main; main({PLAN!r}); {ask}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
