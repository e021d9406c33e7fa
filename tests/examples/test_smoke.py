"""The smoke test of the docs: twenty steps of Megatron-LM, and the log that docs/smoke-test.md promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/smoke-test.md"
STEP = re.compile(r"iteration +(\d+)/ +20 .*?learning rate: (\S+).*?lm loss: (\S+)")


def steps(text):
    return [(int(step), float(rate), float(loss)) for step, rate, loss in STEP.findall(text)]


def said(text):
    return [line for line in text.splitlines() if line.startswith("megatron-nca: ")]


@pytest.mark.slow
def test_the_log_is_what_the_docs_promise(tmp_path):
    if "MEGATRON_LM" not in os.environ:
        pytest.skip("needs a checkout of Megatron-LM: set MEGATRON_LM")
    environment = {**os.environ, "PYTHON": sys.executable, "RUN": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [ROOT / "examples/smoke/train.sh"], capture_output=True, text=True, timeout=500, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    promised = PAGE.read_text(encoding="utf-8")
    assert said(done.stdout.replace(str(tmp_path), "RUN")) == said(promised)
    seen, expected = steps(done.stdout), steps(promised)
    assert len(expected) == 20
    assert [step[:2] for step in seen] == [step[:2] for step in expected]
    assert [loss for *_, loss in seen] == pytest.approx([loss for *_, loss in expected], abs=0.02)
