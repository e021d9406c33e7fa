"""What ``plan --checkpoint`` says of a launch that Megatron-LM refuses beside that checkpoint is what the launch says."""

import contextlib
import copy
import io
from dataclasses import dataclass

import pytest
import torch

from megatron_nca.cli.main import main
from tests.conftest import Tokenizer
from tests.contract.drivers import MegatronLM
from tests.contract.machine import ENTRY, Launch
from tests.contract.records import record_of
from tests.docs.refusals import A_CHECKPOINT, REFUSALS, RUN, VOCABULARY, write_texts

OVERRIDE, AMEND = {"override_curriculum": True}, {"amend_curriculum": True}
LONGER = ENTRY.replace("5000", "7000")
PHASES = "phase:tokens=2K 0.7 TEXT 0.3 OTHER phase: TEXT"


@dataclass(frozen=True)
class Other:
    """A launch beside a checkpoint of another.

    Attributes:
        path: Its data path; the checkpoint's run has NCA and TEXT, or ``begun``.
        options: Its options.
        begun: The data path of the checkpoint's run.
        at: The step at which the checkpoint was written.
        record: What of the checkpoint's record is another.
    """

    path: str
    options: dict
    begun: str = f"{ENTRY} TEXT"
    at: int = 15
    record: tuple = ()


OTHERS = {
    "was written under another curriculum": Other(f"{LONGER} TEXT", {}),
    "this launch has no nca: entry": Other("TEXT", {}),
    "lies behind its switch to": Other(f"{ENTRY.replace('5000', '8192')} TEXT", OVERRIDE),
    "and under the launch's curriculum it would go on at sample": Other(f"{LONGER} TEXT", OVERRIDE),
    "with texts in phases samples would be": Other("phase:tokens=3K 0.7 TEXT 0.3 OTHER phase: TEXT", OVERRIDE, PHASES),
    "has texts without weights": Other("phase: TEXT OTHER", AMEND, PHASES),
    "which stands there too": Other("phase: 0.5 TEXT 0.5 COPY", AMEND, PHASES),
    "counts the run's steps before it reads the": Other("phase:tokens=2K,batch=4 TEXT phase: OTHER", AMEND, PHASES),
    "has version": Other(f"{ENTRY} TEXT", {}, record=(("version", 99),)),
    "is damaged": Other(f"{ENTRY} TEXT", {}, record=(("phases", 3),)),
}
NOT_BY_PLAN = {
    "'s end was passed by the checkpoint": "Megatron-LM counts batches from the checkpoint on, so that no end moves; NeMo's do",
    "would read": "the number of steps so far is not in the record",
    "what each source has given; start once": "a record without it is told of by its version",
    "was written without nca: entries": "there is no record to plan with",
}


def test_every_row_of_a_checkpoint_is_here():
    assert {fragment for fragment, case in REFUSALS.items() if case is A_CHECKPOINT} == set(OTHERS) | set(NOT_BY_PLAN)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    written = write_texts(tmp_path_factory.mktemp("texts"))
    other = tmp_path_factory.mktemp("copy") / "text"
    for ending in (".bin", ".idx"):
        with open(written["TEXT"] + ending, "rb") as source, open(f"{other}{ending}", "wb") as target:
            target.write(source.read())
    return written | {"COPY": str(other)}


@pytest.fixture(scope="module")
def megatron_lm(one_rank, tmp_path_factory):
    return MegatronLM(tmp_path_factory.mktemp("cache"))


def placed(path, texts):
    return tuple(texts.get(word, word) for word in path.split())


def told_by_plan(folder, words):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(["plan", "--checkpoint", str(folder), "--", "pretrain_gpt.py", *words])
    return err.getvalue().removeprefix("megatron-nca: bad plan: ").removeprefix("megatron-nca: error: ").rstrip("\n"), code


@pytest.mark.parametrize("fragment", OTHERS)
def test_plan_says_what_the_launch_says(fragment, texts, megatron_lm, tmp_path):
    case, tokenizer = OTHERS[fragment], Tokenizer(VOCABULARY, *[VOCABULARY - 1] * 3)
    begun = megatron_lm.launch(Launch(placed(case.begun, texts), tokenizer=tokenizer), until=case.at, save_at=(case.at,))
    assert begun.error is None, begun.error
    checkpoint = copy.deepcopy(begun.checkpoints[case.at])
    record, write = record_of(megatron_lm, checkpoint)
    write(record | dict(case.record))
    path = placed(case.path, texts)
    launch = Launch(path, options=case.options, tokenizer=tokenizer)
    refused = megatron_lm.launch(launch, checkpoint=checkpoint)
    assert fragment in str(refused.error)

    torch.save({"args": checkpoint.stacks_own}, tmp_path / "common.pt")
    flags = [f"--nca-{name.replace('_', '-')}" for name in case.options]
    words = ["--data-path", *path, *RUN, "--train-iters", str(launch.steps), *flags]
    message, code = told_by_plan(tmp_path, words)
    assert message == str(refused.error)
    assert code == (2 if case.record else 1)
