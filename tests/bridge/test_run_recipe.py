"""Bridge's own launch script under ``python -m megatron_nca``: overrides bring the data, and the transition comes with them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("megatron") is None or importlib.util.find_spec("megatron.bridge") is None:
    pytest.skip("needs Megatron-Bridge; make test-bridge brings it", allow_module_level=True)

from megatron_nca.rehearsal.ports import free_ports

PROJECT = Path(__file__).parents[2]
ENTRY = "nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64"
RUN_RECIPE = Path(os.environ.get("MEGATRON_BRIDGE", "")) / "scripts/training/run_recipe.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RUN_RECIPE.is_file(), reason="needs a checkout of Megatron-Bridge: set MEGATRON_BRIDGE"),
]


def test_a_launch_with_one_more_word_passes_from_nca_to_text(corpus, tmp_path):
    arguments = ["--recipe", "tiny_pretrain_config", f'dataset.blend=[["{ENTRY}","{corpus}"],null]', "nca.lr=5e-4"]
    [port] = free_ports(1)
    meeting = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "1", *meeting]
    launched = subprocess.run(
        [sys.executable, *torchrun, "tests/bridge/launch_run_recipe.py", str(RUN_RECIPE), str(tmp_path), *arguments],
        capture_output=True, text=True, cwd=PROJECT, timeout=300,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    printed = launched.stdout + launched.stderr
    assert launched.returncode == 0, printed[-4000:]
    assert "switch to text after 80 samples (5,120 tokens): reinitialised embeddings" in printed
    assert "iteration        1/      24" in printed
    rates = [line.split("learning rate: ")[1].split()[0] for line in printed.splitlines() if "learning rate: " in line]
    # The phase's own peak after its warm-up of one iteration, and the text's after one of two.
    assert [float(rates[0]), float(rates[11])] == [5e-4, 1e-3]
