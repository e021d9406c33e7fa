"""Every patch applies to its tag, and is all that the tag needs."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_nca.rehearsal.checkouts import Checkout
from megatron_nca.rehearsal.megatron_lm import Run
from tests.frameworks.test_megatron_lm import ENTRY, EXACT, our_lines

PATCHES = Path(__file__).parents[2] / "patches" / "megatron-lm"
TAGS = ("core_v0.14.0", "core_v0.15.3", "core_v0.16.1", "core_v0.17.1", "core_v0.18.2", "core_v0.19.0")


def patch_of(checkout):
    """The patch of a checkout's minor version."""
    major, minor, _ = checkout.version
    return next(PATCHES.glob(f"core_v{major}.{minor}.*.patch"))


def test_there_is_a_patch_for_every_tag():
    assert sorted(path.stem for path in PATCHES.glob("*.patch")) == sorted(TAGS)


@pytest.mark.parametrize("tag", TAGS)
def test_a_patch_adds_two_lines_to_one_file(tag):
    lines = (PATCHES / f"{tag}.patch").read_text().splitlines()
    added = [line[1:] for line in lines if line.startswith("+") and not line.startswith("+++") and line != "+"]
    assert added == ["import megatron_nca", "megatron_nca.register()"]
    assert not [line for line in lines if line.startswith("-") and not line.startswith("---")]


@pytest.mark.slow
def test_a_patched_checkout_runs_without_the_launch_module(checkout, corpus, tmp_path):
    patched = tmp_path / "patched"
    patched.mkdir()
    for item in checkout.path.iterdir():
        if item.name != "megatron":
            (patched / item.name).symlink_to(item)
    shutil.copytree(checkout.path / "megatron", patched / "megatron", ignore=shutil.ignore_patterns("__pycache__"))
    apply = ["git", "apply", "--check", str(patch_of(checkout))]
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    subprocess.run(apply, cwd=patched, check=True, env=environment)
    subprocess.run([word for word in apply if word != "--check"], cwd=patched, check=True, env=environment)
    data = ("--data-path", ENTRY, str(corpus), "--train-iters", "24", "--exit-interval", "12")
    run = Run(Checkout(patched), flags=(*data, *EXACT), plugin=False)
    log = run.complete(tmp_path / "run")
    _, switch = our_lines((tmp_path / "run" / "rank0.log").read_text())
    assert "switch to text after 80 samples" in switch
    launched = replace(run, checkout=checkout, plugin=True).complete(tmp_path / "launched")
    assert log.losses == launched.losses
