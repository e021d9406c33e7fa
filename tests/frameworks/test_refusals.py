"""Launches that are refused with one clear error, beside those of test_megatron_lm."""

import re
import shutil
from dataclasses import replace

import pytest

from megatron_nca.rehearsal.checkouts import Checkout
from megatron_nca.rehearsal.megatron_lm import TINY_GPT_FLAGS, Run
from tests.docs.refusals import AT_START, VOCABULARY, told_by_launch, told_by_plan, write_texts
from tests.frameworks.test_megatron_lm import ENTRY, EXACT, saving, with_flags

pytestmark = pytest.mark.slow


def pretrain(checkout, corpus, *length):
    """A run of a given length; Megatron-LM takes it in iterations or in samples, not in both."""
    model = tuple(TINY_GPT_FLAGS)
    place = model.index("--train-iters")
    return Run(checkout, (*EXACT, "--data-path", ENTRY, str(corpus), *length), model=model[:place] + model[place + 2 :])


def test_another_sequence_length_in_mid_phase_is_refused(checkout, corpus, tmp_path):
    run = saving(pretrain(checkout, corpus, "--train-iters", "24"), tmp_path / "checkpoint")
    with_flags(run, "--exit-interval", "2").complete(tmp_path / "first")
    output = with_flags(run, "--seq-length", "32").fail(tmp_path / "refused")
    assert "CurriculumError: the checkpoint was written under another curriculum" in output
    assert re.search(r"sequence length:\n.*checkpoint: +64\n.*launch: +32", output)
    assert "iteration        3/" not in output


def test_megatrons_own_phases_together_with_ours_are_refused(checkout, corpus, tmp_path):
    if "--phase-transition-iterations" not in (checkout.path / "megatron/training/arguments.py").read_text():
        pytest.skip(f"{checkout.tag} has no --phase-transition-iterations")
    run = pretrain(checkout, corpus, "--train-samples", "192", "--phase-transition-iterations", "5")
    output = run.fail(tmp_path)
    assert "CurriculumError: --phase-transition-iterations restarts the data at given iterations" in output
    assert "iteration        1/" not in output


def test_a_loader_that_megatron_does_not_have_is_refused(checkout, corpus, tmp_path):
    output = pretrain(checkout, corpus, "--train-iters", "24", "--dataloader-type", "batch").fail(tmp_path)
    assert "invalid choice: 'batch'" in output or "need --dataloader-type single" in output
    assert "iteration        1/" not in output


def test_a_tag_too_old_is_refused(checkout, corpus, tmp_path):
    """The checkout, saying that it is an older one."""
    old = tmp_path / "old"
    old.mkdir()
    for item in checkout.path.iterdir():
        # Copied, since Python looks for modules beside the file that a linked script leads to.
        if item.suffix == ".py":
            shutil.copy(item, old)
    shutil.copytree(checkout.path / "megatron", old / "megatron", ignore=shutil.ignore_patterns("__pycache__"))
    info = old / "megatron/core/package_info.py"
    info.write_text(re.sub(r"^MINOR = \d+", "MINOR = 13", info.read_text(), flags=re.MULTILINE))
    output = pretrain(Checkout(old), corpus, "--train-iters", "24").fail(tmp_path / "run")
    assert re.search(
        r"EnvironmentMismatchError: Megatron-Core 0\.13\S* is too old for megatron-nca; use 0\.14 to 0\.20", output
    )


def test_what_the_arguments_decide_is_told_by_rank_0_in_one_line_and_ends_every_rank(checkout, corpus, tmp_path):
    run = replace(pretrain(checkout, corpus, "--train-iters", "24", "--sft"), data_parallel=2)
    with run.start(tmp_path) as ranks:
        ranks.wait_for(ranks.ended, 300, fail_early=False)
        assert [process.poll() for process in ranks._processes] == [1, 1]
        first, other = (ranks.output(rank) for rank in range(2))
    assert [line for line in first.splitlines() if "--sft reads conversations" in line] == [first.splitlines()[-1]]
    assert "Traceback" not in first
    assert "NCA" not in other
    assert "building GPT model" not in first


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.mark.parametrize("fragment", AT_START)
def test_plan_says_what_a_start_says(checkout, texts, tmp_path, fragment):
    case = AT_START[fragment]
    model = tuple(TINY_GPT_FLAGS)
    # The launch has a warm-up in iterations, and Megatron-LM takes one.
    place = model.index("--lr-warmup-fraction")
    run = Run(checkout, tuple(case.words(texts)), vocabulary=VOCABULARY, model=model[:place] + model[place + 2 :])
    output = run.fail(tmp_path)
    message, _ = told_by_plan(case, texts)
    assert message == told_by_launch(output)
    assert fragment in message
    assert "iteration        1/" not in output
