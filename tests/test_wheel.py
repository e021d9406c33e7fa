"""Wheel and source distribution as a user gets them: built, installed into an environment without torch, and tried there."""

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import setup as packaging
from tests.project import project

ROOT = Path(__file__).parents[1]
PLAN = (
    "plan --data-path nca:tokens=164M,batch=32 /data/text_document --seq-length 1024 --global-batch-size 512 --strict --json "
    "--train-iters 20000 --lr 5e-4 --vocab-size 50304"
)
# The backend changes sys.argv.
BUILD = "import sys, setuptools.build_meta as made; to = sys.argv[1]; made.build_wheel(to); made.build_sdist(to)"
WITHOUT_TORCH = ("test_rule", "test_tokens", "test_philox", "test_reference")


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600, **more)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A folder with both, built from a clone, or the one that MEGATRON_NCA_DISTRIBUTIONS names."""
    if "MEGATRON_NCA_DISTRIBUTIONS" in os.environ:
        return Path(os.environ["MEGATRON_NCA_DISTRIBUTIONS"]).resolve()
    home = tmp_path_factory.mktemp("distributions")
    run("git", "clone", "--quiet", ROOT, home / "source")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--target", home / "setuptools", "setuptools>=77")
    run(sys.executable, "-c", BUILD, home, cwd=home / "source", env={**os.environ, "PYTHONPATH": str(home / "setuptools")})
    return home


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def installed(request, distributions, tmp_path_factory):
    """An environment that has the distribution, numpy and numba, and nothing of this repository."""
    home = tmp_path_factory.mktemp("installed")
    [distribution] = distributions.glob(f"megatron_nca-{request.param}")
    run(sys.executable, "-m", "venv", home / "venv")
    pip = (home / "venv/bin/pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "install", "-c", ROOT / "constraints.txt", distribution)
    found = run(*pip, "list", "--format", "freeze")
    assert "torch" not in found
    assert "megatron-core" not in found
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = home / "venv/bin/megatron-nca"
    return SimpleNamespace(
        folder=home, pip=pip, environment=alone, command=lambda *words: run(command, *words, cwd=home, env=alone)
    )


@pytest.mark.slow
def test_a_fresh_environment_has_preview_plan_and_doctor_without_torch(installed):
    assert installed.command("--version").startswith("megatron-nca ")
    assert len(installed.command("preview", "nca:domain=code", "--text", "--rules", "2", "--frames", "3").splitlines()) > 5
    result = json.loads(installed.command(*PLAN.split()))
    assert result["good"]
    assert result["phases"][0]["last_iteration"] == 5005
    assert "cannot be imported (No module named 'megatron'" in installed.command("doctor")


@pytest.mark.slow
def test_the_page_of_the_gallery_is_in_the_distribution(installed, tmp_path):
    installed.command("preview", "nca:grid=4,colors=3,gzip=none", "--html", tmp_path / "page.html", "--rules", "1")
    assert "<html" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_tests_of_the_source_distribution_pass_on_what_is_installed(installed, distributions):
    [archive] = distributions.glob("megatron_nca-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(installed.folder)
    tree = installed.folder / archive.name.removesuffix(".tar.gz")
    # What is tried must be what was installed, not what lies beside the tests.
    (tree / "megatron_nca").rename(tree / "not_this_one")
    run(*installed.pip, "install", "-c", ROOT / "constraints.txt", "pytest", "hypothesis")
    tests = [f"tests/automaton/{name}.py" for name in WITHOUT_TORCH]
    result = run(installed.folder / "venv/bin/python", "-m", "pytest", *tests, cwd=tree, env=installed.environment)
    assert re.search(r"\d\d passed", result), result


@pytest.mark.slow
def test_the_source_distribution_holds_what_the_repository_does(distributions):
    [archive] = distributions.glob("megatron_nca-*.tar.gz")
    with tarfile.open(archive) as packed:
        inside = {member.name.partition("/")[2] for member in packed.getmembers()}
    tracked = {name for name in run("git", "ls-files", cwd=ROOT).splitlines() if name.partition("/")[0] not in LEFT_OUT}
    assert tracked - inside == set()


LEFT_OUT = {".github", ".gitignore", ".pre-commit-config.yaml"}


@pytest.mark.slow
def test_what_the_wheel_says_of_itself(distributions):
    [wheel] = distributions.glob("megatron_nca-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        [metadata] = [packed.read(name) for name in names if name.endswith(".dist-info/METADATA")]
    result = email.message_from_bytes(metadata)
    assert result["Name"] == "megatron-nca"
    assert result["License-Expression"] == "Apache-2.0"
    assert result["Requires-Python"] == project()["requires-python"]
    assert sorted(result.get_all("Provides-Extra")) == sorted(project()["optional-dependencies"])
    assert "pre-training" in result.get_payload()
    here = [file for file in (ROOT / "megatron_nca").rglob("*.*") if file.suffix not in (".pyc", ".nbi", ".nbc")]
    assert {str(file.relative_to(ROOT)) for file in here} - set(names) == set()


README = (ROOT / "README.md").read_text(encoding="utf-8")
RELATIVE = re.compile(r"\]\((?!https?://|#)[^)]*\)")


def test_links_and_pictures_of_the_description_are_written_out_in_full():
    assert RELATIVE.search(README)
    result = packaging.description(README, "https://example.org/group/project")
    assert RELATIVE.findall(result) == []
    assert "](https://example.org/group/project/raw/HEAD/docs/images/preview-code.png)" in result
    assert "[NeMo](https://example.org/group/project/blob/HEAD/docs/nemo.md)" in result
    assert "(https://arxiv.org/abs/2603.10055)" in result


def test_without_an_address_the_description_has_neither_dead_links_nor_pictures():
    result = packaging.description(README, "")
    assert RELATIVE.findall(result) == []
    assert "![" not in result
    assert "NeMo recipes" in result
    assert packaging.addresses("") == {}
