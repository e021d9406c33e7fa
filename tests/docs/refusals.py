"""Every row of the errors in docs/operations.md as a launch of Megatron-LM that meets it, or the reason why none does.

A launch here trains on sequences of 64 in batches of 8, so that a stand-in, a real Megatron-LM and ``plan`` can each be given
it. ``TEXT`` and ``OTHER`` in it are tokenised texts of bytes, ``SHORT`` one of four sequences, ``DAMAGED`` one whose index is
none; ``MISSING`` is not there.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron_nca.cli.main import main

ENTRY = "nca:tokens=5000,grid=4,colors=3,gzip=none,trajectory=64"
RUN = (
    *("--seq-length", "64", "--global-batch-size", "8", "--micro-batch-size", "4", "--split", "90,5,5"),
    *("--lr", "1e-3", "--min-lr", "1e-5", "--lr-decay-style", "cosine", "--lr-warmup-iters", "2"),
)


@dataclass(frozen=True)
class Refused:
    """A launch that is refused.

    Attributes:
        path: The words of ``--data-path``.
        flags: What else is given.
        at: When the launch is refused: ``words`` before Megatron is imported; ``start`` once its datasets are built or its
            optimizer is there.
        steps: Length of the run.
        is_note: Whether ``plan`` tells it and goes on, since its machine need not be the launch's.
    """

    path: str
    flags: tuple[str, ...] = ()
    at: Literal["words", "start"] = "words"
    steps: int = 24
    is_note: bool = False

    def words(self, texts: Mapping[str, str]) -> list[str]:
        """Return what stands behind the script's name.

        Args:
            texts: What stands for TEXT and its like.
        """
        path = ["--data-path", *self.path.split()] if self.path else []
        words = [*path, *RUN, "--train-iters", str(self.steps), *self.flags]
        return [re.sub("|".join(texts), lambda found: texts[found[0]], word) for word in words]


VOCABULARY = 256
"""Ids of the tokenizer, the last of them its end of document."""


@dataclass(frozen=True)
class NoLaunch:
    """A row that no launch of Megatron-LM's words alone meets.

    Attributes:
        why: What decides it.
    """

    why: str


def entry(words: str) -> Refused:
    """Return a launch with an entry of these words before its text."""
    return Refused(f"nca:{words} TEXT")


def flags(*words: str) -> Refused:
    """Return a launch that is right but for these flags."""
    return Refused(f"{ENTRY} TEXT", words)


A_SCRIPT = NoLaunch("a script's own call")
OTHER_STACK = NoLaunch("another stack's setting")
A_CHECKPOINT = NoLaunch("what a checkpoint holds; tests/contract/test_checkpoint_refusals.py has them")
THE_MODEL = NoLaunch("the model, or its optimizer")
THE_MACHINE = NoLaunch("this machine")
A_CORPUS = NoLaunch("a corpus of `megatron-nca build`")
BY_FLAG = NoLaunch("an argument that a flag of Megatron-LM's cannot be: argparse has a word for it first")

REFUSALS: dict[str, Refused | NoLaunch] = {
    # An entry
    "is no key of an entry": entry("token=5000"),
    "is no setting of the process": A_SCRIPT,
    "is not key=value": entry("tokens=5000,grid"),
    "must start with": A_SCRIPT,
    "stands twice": entry("tokens=5000,grid=4,grid=4"),
    "is not a count": entry("tokens=5000k5"),
    "is too large; at most": entry("tokens=9999999T"),
    "is too large a pool": entry("tokens=5000,rules=999T"),
    "must be at least 1": entry("tokens=0"),
    "must not be negative": entry("tokens=5000,seed=-1"),
    "is not a whole number": entry("tokens=5000,grid=4.5"),
    "is not a number": entry("tokens=5000,temperature=warm"),
    "is not a finite number": NoLaunch("NCAConfig in a script; in an entry it is no number"),
    "must lie between": entry("tokens=5000,colors=1000"),
    "is not a share": entry("tokens=5000,ramp=100,floor=5%"),
    "random rules of these settings compress to": Refused(
        "nca:tokens=5000,grid=4,colors=3,gzip=0.98-0.99,trajectory=64 TEXT", at="start"
    ),
    "of a core; at most": entry("tokens=5000,burn_in=1000000"),
    "must be yes or no": entry("tokens=5000,rare=perhaps"),
    "is not a band": entry("tokens=5000,gzip=2"),
    "is empty; the first bound": entry("tokens=5000,gzip=0.9-0.5"),
    "must be one of": entry("tokens=5000,domain=maths"),
    "must be shared, or offset:N": entry("tokens=5000,vocab=mine"),
    "does not divide the grid": entry("tokens=5000,grid=12,patch=5"),
    "more than an int32 holds": entry("tokens=5000,grid=12,patch=12,colors=16"),
    "tokens=... too, or leave it out": entry("ramp=100"),
    "a batch has at most": entry("tokens=5000,batch=2B"),
    "tokens; give at least": entry("tokens=5000,trajectory=3"),
    # A curriculum
    "is no key of a phase": Refused("phase:token=5000 TEXT phase: TEXT"),
    "holds no data": Refused("phase:tokens=5000 phase: TEXT"),
    "stands in no phase": Refused("TEXT phase: TEXT"),
    "so it needs an end": Refused("phase: TEXT phase: TEXT"),
    "other phases may go on with": Refused("phase:tokens=5000 TEXT OTHER phase: TEXT"),
    "counts its schedule in batches of one size": OTHER_STACK,
    "which is micro-batch times": NoLaunch("the number of ranks"),
    "with texts in phases samples would be": A_CHECKPOINT,
    "has texts without weights": A_CHECKPOINT,
    "which stands there too": A_CHECKPOINT,
    "has no place among them": Refused(
        "", ("--train-data-path", ENTRY, "TEXT", "--valid-data-path", "phase:", "TEXT", "--multiple-validation-sets")
    ),
    "has no weight, others of its blend": Refused("0.5 nca: TEXT"),
    "follow each other; write one weight": Refused("0.5 0.5 nca: TEXT"),
    "nothing follows this phase": Refused(ENTRY, at="start"),
    "which needs weights": Refused("nca: TEXT"),
    "a weight must be positive": Refused("-1 nca: 1 TEXT"),
    "stands where a dataset is expected": Refused("nca: TEXT 0.5"),
    "floor=1 leaves nothing": entry("tokens=5000,ramp=100,floor=1"),
    "ramp and floor need something that follows": Refused("nca:tokens=5000,ramp=100"),
    "a sequence of": Refused("nca:tokens=5000,grid=12,gzip=none TEXT", at="start"),
    "need a GPTDataset for the text": NoLaunch("a script's dataset"),
    "which reads samples in order": flags("--dataloader-type", "cyclic"),
    "would read": A_CHECKPOINT,
    "give the prefix of a tokenised text": Refused(f"{ENTRY} MISSING", at="start", is_note=True),
    "reports:": NoLaunch("another rank"),
    "reads conversations with a dataset of its own": flags("--sft"),
    "lays sequences of many lengths over its ranks": flags("--hybrid-context-parallel"),
    "restarts the data at given iterations": flags("--phase-transition-iterations", "5"),
    "need a number of training samples": A_SCRIPT,
    "split needs a size": Refused("0.5 nca: 0.5 TEXT", ("--full-validation",)),
    "in one pass and has no": NoLaunch("how Megatron counts a text's samples"),
    "is given, but no data path has": Refused("TEXT", ("--nca-reinit", "norms")),
    # A band, a text that is measured
    "random rules has a compression ratio": NoLaunch("one rule number among 65,536 candidates"),
    "no tokenised text there": Refused("nca:tokens=5000,domain=auto:MISSING TEXT", at="start"),
    "too few to measure": NoLaunch("a text of a few tokens"),
    "is no index of Megatron": NoLaunch("a file in a text's place"),
    "which are not known here": NoLaunch("a file in a text's place"),
    # The vocabulary
    "do not fit the tokenizer": Refused("nca:tokens=5000,grid=4,patch=2,colors=10,gzip=none,trajectory=64 TEXT", at="start"),
    "but the vocabulary ends at": Refused(ENTRY.replace("nca:", "nca:vocab=offset:1000,") + " TEXT", at="start"),
    "the tokenizer has no end-of-document token": NoLaunch("a tokenizer of Hugging Face's; `plan` asks for --eod"),
    "covers the special token": Refused(ENTRY.replace("nca:", "nca:vocab=offset:173,") + " TEXT", at="start"),
    # The transition
    "does not fit the NCA phases": Refused(f"{ENTRY} TEXT", ("--nca-lr-warmup-samples", "100"), at="start"),
    "so it cannot be restarted at the switch": OTHER_STACK,
    "decay remain, too few for the": Refused(f"{ENTRY} TEXT", at="start", steps=12),
    "its schedulers have one end for all weights": OTHER_STACK,
    "embeddings no learning rate of their own": flags("--nca-decoupled-lr", "1e-4"),
    "give the NCA phases a schedule of their own": flags("--nca-lr", "1e-4", "--nca-lr-at-switch", "continue"),
    "runs beside the validation of text": flags("--nca-valid", "--eval-iters", "0"),
    "lets attention see every frame before it in a sample": flags("--nca-valid", "2", "--dataloader-inter-document-masking"),
    "mlp of a mixture of experts": THE_MODEL,
    "keeps a rank's experts in one parameter": flags(
        "--nca-reinit", "mlp", "--num-experts", "8", "--moe-single-grouped-weight"
    ),
    "cuts weights over a further group": flags("--tensor-parallel-num-weight-shards", "2"),
    "keeps shards of a form that is not drawn anew": flags("--use-megatron-fsdp", "--megatron-fsdp-version", "2"),
    "keeps copies of weights and moments on the host": flags("--optimizer-cpu-offload"),
    "optimizer: CPU offload": THE_MODEL,
    # An option
    "there is no such option": OTHER_STACK,
    "there is no such flag": flags("--nca-lr-warmup", "3"),
    "has no value; write": OTHER_STACK,
    "its schedulers count steps": OTHER_STACK,
    "the warm-up is counted in samples": OTHER_STACK,
    "its decay is the scheduler's own class": OTHER_STACK,
    "must be a finite number, not below 0": flags("--nca-lr", "-1"),
    "is no number, such as": flags("--nca-lr", "fast"),
    "or the whole none": flags("--nca-reinit", "head"),
    "must be a word": BY_FLAG,
    "must be true or false": BY_FLAG,
    # A checkpoint
    "counts the run's steps before it reads the": A_CHECKPOINT,
    "copy or tokenise the text again": Refused(f"{ENTRY} DAMAGED", at="start"),
    "sequences, of which --split leaves": Refused(f"{ENTRY} SHORT", at="start"),
    "was written under another curriculum": A_CHECKPOINT,
    "so Megatron would read its training data from the first": Refused("0.5 TEXT 0.5 OTHER", ("--nca-amend-curriculum",)),
    "what each source has given; start once": A_CHECKPOINT,
    "has version": A_CHECKPOINT,
    "is damaged": A_CHECKPOINT,
    "'s end was passed by the checkpoint": A_CHECKPOINT,
    "lies behind its switch to": A_CHECKPOINT,
    "and under the launch's curriculum it would go on at sample": A_CHECKPOINT,
    "this launch has no nca: entry": A_CHECKPOINT,
    "was written without nca: entries": A_CHECKPOINT,
    # The machine
    "ranks do not make the same NCA tokens": NoLaunch("another rank"),
    "known inputs is not what it is on other machines": THE_MACHINE,
    "NUMBA_DISABLE_JIT is set": THE_MACHINE,
    "This machine's mathematical library": THE_MACHINE,
    "importing its dataset builder failed": THE_MACHINE,
    "megatron-nca knows": THE_MACHINE,
    "is too old for megatron-nca": THE_MACHINE,
    "BlendedMegatronDatasetBuilder takes": THE_MACHINE,
    # A script of one's own
    "is there already; remove it, or give another": A_CORPUS,
    "another process is building this corpus": A_CORPUS,
    "an unfinished corpus of other settings": A_CORPUS,
    "so something else wrote it": A_CORPUS,
    "nothing says where the run stands": A_SCRIPT,
    "the launch's arguments did not come by": NoLaunch("--yaml-cfg; `plan` passes over a launch whose arguments it cannot see"),
    "a training loop is running that": OTHER_STACK,
    "must lie in [0, 2**48)": A_SCRIPT,
}

LISTED_BESIDES = {
    "--moe-use-legacy-grouped-gemm": flags("--nca-reinit", "mlp", "--num-experts", "8", "--moe-use-legacy-grouped-gemm"),
}
"""What docs/launches.md says is refused, and the errors have under another flag."""
EVERLASTING = "0.5 nca:grid=4,colors=3,gzip=none,trajectory=64 0.5 TEXT"
TAKEN = {
    "offload without a transition": flags("--optimizer-cpu-offload", "--nca-reinit", "none", "--nca-optimizer", "keep"),
    "weight shards without new weights": flags("--tensor-parallel-num-weight-shards", "2", "--nca-reinit", "none"),
    "FSDP without new weights": flags("--use-megatron-fsdp", "--megatron-fsdp-version", "2", "--nca-reinit", "none"),
    "offload without a switch": Refused(EVERLASTING, ("--optimizer-cpu-offload",)),
    "weight shards without a switch": Refused(EVERLASTING, ("--tensor-parallel-num-weight-shards", "2")),
    "FSDP without a switch": Refused(EVERLASTING, ("--use-megatron-fsdp", "--megatron-fsdp-version", "2")),
}
"""What it says is not."""
BY_WORDS = {fragment: case for fragment, case in REFUSALS.items() if isinstance(case, Refused) and case.at == "words"}
AT_START = {fragment: case for fragment, case in REFUSALS.items() if isinstance(case, Refused) and case.at == "start"}
ERROR = re.compile(r"^(?:\[rank\d+\]: )?(?:megatron-nca: |megatron_nca\.errors\.)\w+Error: (.*)$", re.MULTILINE)


def write_texts(folder: Path) -> dict[str, str]:
    """Write the texts; returns what stands for each name."""
    from megatron_nca.rehearsal.corpus import write_corpus

    texts = {name: str(folder / name.lower()) for name in ("TEXT", "OTHER", "SHORT", "DAMAGED", "MISSING")}
    for name, documents in {"TEXT": 40, "OTHER": 39, "SHORT": 4}.items():
        write_corpus(
            Path(texts[name]),
            [bytes(97 + (7 * start + place * place) % 13 for place in range(400)) for start in range(documents)],
        )
    Path(f"{texts['DAMAGED']}.idx").write_bytes(b"no index of a text")
    Path(f"{texts['DAMAGED']}.bin").write_bytes(b"")
    return texts


def told_by_launch(output: str) -> str:
    """Return the message that a launch ended with."""
    return ERROR.findall(output)[-1]


def told_by_plan(case: Refused, texts: Mapping[str, str]) -> tuple[str, int]:
    """Return the message of ``plan`` for the launch, and its exit code."""
    words = ["plan", "--", "torchrun", "-m", "megatron_nca", "pretrain_gpt.py", "--vocab-size", str(VOCABULARY)]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main([*words, *case.words(texts)])
    if case.is_note:
        return re.findall(r"^note: a launch on this machine would be refused: (.*)$", out.getvalue(), re.MULTILINE)[0], code
    [line] = err.getvalue().splitlines()
    return re.sub("^megatron-nca: (bad plan|error): ", "", line), code
