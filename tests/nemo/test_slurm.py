"""NeMo-Run's SlurmExecutor as examples/slurm sets it up: the batch script that it would submit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nemo", reason="needs NeMo 2.7; make test-nemo brings it")

from megatron_nca.testing.corpus import write_corpus

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]


def environment(folder):
    quiet = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
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
        "#SBATCH --signal=15@300",
        "#SBATCH --open-mode=append",
        "#SBATCH --job-name=nca-llama3_8b_nca",
        "export NUMBA_CACHE_DIR=/tmp/nca-$SLURM_JOB_ID/numba",
        "export TORCHX_MAX_RETRIES=20",
    ],
)
def test_the_batch_script_outlives_its_job(batch_script, line):
    assert line in batch_script.splitlines()


def test_the_batch_script_takes_a_container(batch_script):
    assert "--container-image image.sqsh" in batch_script
    assert "--container-mounts /data:/data," in batch_script
