"""What a rehearsal makes of outputs and logs."""

from pathlib import Path

import pytest

from megatron_nca.rehearsal.checkouts import Checkout
from megatron_nca.rehearsal.course import FAILED, OK, _compared, fault, without_plugin
from megatron_nca.rehearsal.megatron_lm_course import MegatronLMRehearsal, _without_writers
from megatron_nca.rehearsal.ranks import RunError
from megatron_nca.rehearsal.training_log import parse_log


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            "megatron-nca: EntryError: data path entry 'nca:a=1': is no key\nother\n",
            "megatron-nca: EntryError: data path entry 'nca:a=1': is no key",
        ),
        (
            "usage: x\npretrain_gpt.py: error: unrecognized arguments: --x\n",
            "pretrain_gpt.py: error: unrecognized arguments: --x",
        ),
        ("Traceback\n  assert a\nAssertionError: first\nTraceback\nRuntimeError: second\n", "RuntimeError: second"),
        ("[rank1]: Traceback\n[rank1]: torch.OutOfMemoryError: no\n", "torch.OutOfMemoryError: no"),
        ("Traceback\n    assert args.lr is not None\nAssertionError\n", "AssertionError: assert args.lr is not None"),
        ("megatron-nca: warning: told\nmegatron-nca: switch to text\nTraceback\nRuntimeError: why\n", "RuntimeError: why"),
        ("Killed\n", "Killed"),
        ("", "ended without a word"),
    ],
)
def test_a_refusal_is_told_in_the_launch_s_own_words(output, words):
    assert fault(output) == words


def log(losses):
    lines = (f" iteration {step:8d}/ 9 | consumed samples: 8 | lm loss: {loss} |\n" for step, loss in losses.items())
    return parse_log("".join(lines))


def test_equal_losses_after_a_resume_are_fine():
    check = _compared(log({5: 2.0, 6: 1.5, 7: 1.25}), log({6: 1.5, 7: 1.25, 8: 1.0}), 5, 7)
    assert (check.state, check.detail) == (OK, "killed after 7, resumed from 5: losses of 6, 7 are equal")


def test_other_losses_after_a_resume_fail():
    check = _compared(log({6: 1.5, 7: 1.25}), log({6: 1.5, 7: 1.5}), 5, 7)
    assert check.state == FAILED
    assert check.detail == "resumed from 5, the losses differ from iteration 7 on, by up to 0.25"


def test_a_resume_that_repeats_nothing_fails():
    assert _compared(log({1: 1.0}), log({8: 1.0}), 5, 7).state == FAILED


@pytest.mark.parametrize(
    ("alone", "told"),
    [
        ("Traceback\nRuntimeError: size\n", "so without the plugin"),
        ("Traceback\nKeyError: 'a'\n", "nor does the text alone, without the plugin: KeyError: 'a'"),
        (None, "the text alone, without the plugin, does"),
    ],
)
def test_a_run_that_does_not_go_on_is_compared_with_the_text_alone(monkeypatch, tmp_path, alone, told):
    def control(self, run, killed):
        if alone is not None:
            raise RunError(alone)
        return log({1: 1.0}), log({1: 1.0})

    monkeypatch.setattr(MegatronLMRehearsal, "_control", control)
    rehearsal = MegatronLMRehearsal(None, tmp_path, None, None, checkout=Checkout(tmp_path))
    check = rehearsal._failed_with_control("RuntimeError: size", None, 5, 9)
    assert (check.state, check.detail) == (FAILED, f"does not go on from 5: RuntimeError: size; {told}")


def test_the_same_run_without_the_plugin_reads_its_last_text():
    words = "--data-path nca:tokens=1M 0.5 /a phase:tokens=2M 0.5 /b 0.5 /c --nca-lr 1e-4 --nca-valid --save /s --bf16"
    alone = without_plugin(words.split(), Path("/s"), Path("/own"))
    assert alone == ("--data-path", "0.5", "/b", "0.5", "/c", "--save", "/own", "--bf16")


def test_reading_arguments_writes_nothing():
    words = "--bf16 --tensorboard-dir /t --wandb-project p --lr 1e-4 --use-persistent-ckpt-worker --swiglu"
    assert _without_writers(words.split()) == ["--bf16", "--lr", "1e-4", "--swiglu"]
