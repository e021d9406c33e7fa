"""The Dockerfile: its instructions, what it copies, its commands run in an environment made here, what docs say of images."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker/Dockerfile"
INSTRUCTIONS = {"ARG", "FROM", "COPY", "RUN", "WORKDIR", "ENV", "LABEL"}
IMAGE = re.compile(r"nvcr\.io/nvidia/(?:nemo|pytorch):[\w.-]+")


def instructions():
    """Return each instruction and what follows it, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def of(kind):
    return [words for name, words in instructions() if name == kind]


def test_its_instructions_are_docker_s():
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    assert [name for name, _ in instructions()][:2] == ["ARG", "FROM"]


def test_its_base_is_a_tag_that_stays_what_it_is():
    base = of("ARG")[0].removeprefix("BASE=")
    assert IMAGE.fullmatch(base)
    assert of("FROM") == ["${BASE}"]
    assert "latest" not in base


def test_what_it_copies_is_there_and_is_sent_to_docker():
    sources = [source for words in of("COPY") for source in words.split()[:-1]]
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "megatron_nca" in sources
    assert [source for source in sources if not (ROOT / source).exists() or f"!{source}" not in sent] == []


def test_the_versions_page_tells_of_every_image_that_is_named():
    told = (ROOT / "docs/versions.md").read_text(encoding="utf-8")
    pages = [DOCKERFILE, *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.*")]
    texts = [page.read_text(encoding="utf-8") for page in pages if page.suffix in ("", ".md", ".sh", ".sbatch")]
    named = {image for text in texts for image in IMAGE.findall(text)}
    assert len(named) > 1
    assert [image for image in named if f"| `{image}` |" not in told] == []


@pytest.mark.slow
def test_its_commands_work_and_the_fingerprint_is_asked_for(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    copied = tmp_path / "megatron-nca"
    for words in of("COPY"):
        *sources, target = words.split()
        for source in sources:
            place = Path(target.replace("/opt/megatron-nca", str(copied)))
            place = place / source if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, place)
    arguments = dict(words.split("=", 1) for words in of("ARG"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | arguments
    environment["PATH"] = f"{tmp_path / 'venv/bin'}:{environment['PATH']}"
    for command in of("RUN"):
        words = ["sh", "-c", command.replace("/opt/megatron-nca", str(copied))]
        done = subprocess.run(words, capture_output=True, text=True, timeout=500, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0, done.stderr
    environment["FINGERPRINT"] = "0"
    other = subprocess.run(words, capture_output=True, timeout=500, cwd=tmp_path, env=environment, check=False)
    assert other.returncode == 1


def test_hadolint_finds_nothing():
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if linter is None:
        pytest.skip("hadolint is not installed; it comes with megatron-nca[lint]")
    done = subprocess.run([linter, str(DOCKERFILE)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
