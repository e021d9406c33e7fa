"""The wheel as a user gets it: built, installed into an environment of its own without torch, and tried there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLAN = (
    "plan --data-path nca:tokens=164M,batch=32 /data/text_document --seq-length 1024 --global-batch-size 512 --strict --json "
    "--train-iters 20000 --lr 5e-4 --vocab-size 50304"
)


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600, **more)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The console script in an environment that has the wheel, numpy and numba, and nothing of this repository."""
    home = tmp_path_factory.mktemp("wheel")
    run("git", "clone", "--quiet", ROOT, home / "source")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", home, home / "source")
    [wheel] = home.glob("megatron_nca-*.whl")
    run(sys.executable, "-m", "venv", home / "venv")
    run(home / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wheel)
    found = run(home / "venv/bin/pip", "list", "--format", "freeze")
    assert "torch" not in found
    assert "megatron-core" not in found
    return lambda *words: run(home / "venv/bin/megatron-nca", *words, cwd=home)


@pytest.mark.slow
def test_a_fresh_environment_has_preview_plan_and_doctor_without_torch(installed):
    assert installed("--version").startswith("megatron-nca ")
    assert len(installed("preview", "nca:domain=code", "--text", "--rules", "2", "--frames", "3").splitlines()) > 5
    told = json.loads(installed(*PLAN.split()))
    assert told["good"]
    assert told["phases"][0]["last_iteration"] == 5005
    assert "cannot be imported (No module named 'megatron'" in installed("doctor")


@pytest.mark.slow
def test_the_page_of_the_gallery_is_in_the_wheel(installed, tmp_path):
    installed("preview", "nca:grid=4,colors=3,gzip=none", "--html", tmp_path / "page.html", "--rules", "1")
    assert "<html" in (tmp_path / "page.html").read_text()
