"""NeMo-Run's SlurmExecutor as examples/slurm sets it up: its batch script, and that script on a real cluster."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nemo", reason="needs NeMo 2.7; make test-nemo brings it")

from megatron_nca.rehearsal.corpus import write_corpus

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
STEPS = 24

# The example's own executor and submission, with a task that needs no GPU in the recipe's place.
SUBMIT = """\
import sys
import nemo_run as run
import nemo_recipe

make_executor = nemo_recipe.make_executor

def without_gpus(args):
    executor = make_executor(args)
    executor.gpus_per_node = None
    executor.env_vars["MASTER_ADDR"] = "127.0.0.1"
    return executor

nemo_recipe.make_executor = without_gpus
launcher, script, folder, text, *options = sys.argv[1:]
args = nemo_recipe.make_parser().parse_args([text, "--folder", folder, "--gpus-per-node", "1", "--account", "a", *options])
task = run.Script("megatron_nca.rehearsal", m=True, entrypoint=launcher, args=["--plain", script, folder, text])
nemo_recipe.submit(task, args)
"""

# The first attempt dies in the NCA phase, the second behind the switch.
DYING_PYTHON = """\
#!/bin/bash
case "${{SLURM_RESTART_COUNT:-0}}" in
    0) exec {python} "$@" --die-after 7 ;;
    1) exec {python} "$@" --die-after 13 ;;
esac
exec {python} "$@"
"""


# The first job of a chain waits to be told that its time is up; a link is made once, whichever rank does it.
WAITING_PYTHON = """\
#!/bin/bash
ln -s "$SLURM_JOB_ID" {folder}/first 2> /dev/null
[[ $(readlink {folder}/first) == "$SLURM_JOB_ID" ]] && set -- "$@" --wait-after 7
exec {python} "$@"
"""


def environment(folder):
    quiet = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{PROJECT}:{PROJECT / 'examples/slurm'}"}
    return {**os.environ, **quiet, "NEMORUN_HOME": str(folder / "nemorun"), "COLUMNS": "1000"}


@pytest.fixture(scope="module")
def batch_script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dry")
    text = write_corpus(folder / "text", [b"a text"])
    command = [sys.executable, PROJECT / "examples/slurm/nemo_recipe.py", text, "--account", "a", "--folder", folder, "--fp8"]
    options = ["--nodes", "4", "--container", "image.sqsh", "--mounts", "/data:/data", "--dry-run"]
    shown = subprocess.run(
        [*map(str, command), *options], capture_output=True, text=True, cwd=folder, env=environment(folder), timeout=300
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    return "\n".join(line.strip() for line in shown.stdout.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --requeue",
        "#SBATCH --dependency=singleton",
        "#SBATCH --signal=23@300",
        "#SBATCH --open-mode=append",
        "#SBATCH --job-name=nca-llama3_8b_nca",
        "export TORCHX_MAX_RETRIES=20",
    ],
)
def test_the_batch_script_outlives_its_job(batch_script, line):
    assert line in batch_script.splitlines()


def test_the_folder_of_kernels_has_a_name_that_nobody_can_guess(batch_script):
    assert re.search(r"^export NUMBA_CACHE_DIR=/tmp/nca-\$SLURM_JOB_ID-[0-9a-f]{32}/numba$", batch_script, re.MULTILINE)


def test_the_recipe_heeds_the_signal_that_the_job_gets(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "examples/slurm")
    import nemo_recipe
    from nemo.lightning.pytorch.callbacks import PreemptionCallback

    args = nemo_recipe.make_parser().parse_args(["/data/text_document", "--account", "a", "--folder", str(tmp_path)])
    [callback] = [c for c in nemo_recipe.make_recipe(args).trainer.callbacks if c.__fn_or_cls__ is PreemptionCallback]
    assert nemo_recipe.make_executor(args).signal == f"{callback.sig}@300"


def test_the_batch_script_takes_a_container(batch_script):
    assert "--container-image image.sqsh" in batch_script
    assert "--container-mounts /data:/data," in batch_script


def submit(cluster, folder, corpus, launcher, *options):
    """Submit through the example, and return the ids of the jobs in the queue."""
    script = PROJECT / "examples/nemo/tiny_pretrain.py"
    options = ("--nodes", "2", "--name", folder.name, *options)
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT, *map(str, (launcher, script, folder, corpus)), *options],
        capture_output=True, text=True, cwd=PROJECT, env=cluster.environment | environment(folder), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted(cluster("squeue", "-h", "-o", "%i", "-n", f"nca-{folder.name}").split(), key=int)


def losses(folder):
    """Return every step's loss, and the first step of each attempt."""
    seen, first = {}, []
    for log in sorted(folder.glob("nemorun/**/log-*.out"), key=lambda log: log.stat().st_mtime_ns):
        rows = [line.split() for line in log.read_text(errors="replace").splitlines() if line.startswith("LOSS ")]
        first += [int(step) for _, step, _ in rows[:1]]
        for _, step, loss in rows:
            assert seen.setdefault(int(step), loss) == loss, f"step {step} gave {seen[int(step)]}, then {loss}"
    return seen, first


@pytest.fixture(scope="module")
def whole(cluster, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    [job] = submit(cluster, folder, corpus, sys.executable)
    state = cluster.wait_for_end(job, 300)
    assert state == "COMPLETED", [log.read_text()[-3000:] for log in folder.glob("nemorun/**/*.out")]
    return losses(folder)[0]


def test_the_job_runs_on_both_nodes_and_trains_as_one_rank_does(whole, corpus, tmp_path):
    command = [
        "-m",
        "megatron_nca.rehearsal",
        "--plain",
        str(PROJECT / "examples/nemo/tiny_pretrain.py"),
        str(tmp_path),
        str(corpus),
    ]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment(tmp_path), cwd=tmp_path, timeout=300
    )
    alone = {int(step): loss for _, step, loss in map(str.split, re.findall("^LOSS.*", done.stdout, re.MULTILINE))}
    assert sorted(alone) == sorted(whole) == list(range(1, STEPS + 1))
    for step, loss in alone.items():
        assert float.fromhex(whole[step]) == pytest.approx(float.fromhex(loss), rel=1e-5)


def test_out_of_time_it_saves_and_the_next_of_the_chain_goes_on(cluster, corpus, whole, tmp_path):
    """SLURM's signal comes five minutes before the limit, at a step that no interval would have saved."""
    launcher = tmp_path / "python"
    launcher.write_text(WAITING_PYTHON.format(folder=tmp_path, python=sys.executable))
    launcher.chmod(0o755)
    jobs = submit(cluster, tmp_path, corpus, launcher, "--jobs", "2", "--time", "00:07:00")
    assert [cluster.wait_for_end(job, 400) for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert losses(tmp_path) == (whole, [1, 8])


def test_killed_and_queued_again_it_ends_with_the_same_losses(cluster, corpus, whole, tmp_path):
    launcher = tmp_path / "python"
    launcher.write_text(DYING_PYTHON.format(python=sys.executable))
    launcher.chmod(0o755)
    [job] = submit(cluster, tmp_path, corpus, launcher)
    assert cluster.wait_for_end(job, 400) == "COMPLETED"
    seen, first = losses(tmp_path)
    assert sorted(seen) == list(range(1, STEPS + 1))
    assert seen == whole
    assert len(first) == 3
    assert first[0] == 1 < first[1] <= 7 < first[2] <= 13
