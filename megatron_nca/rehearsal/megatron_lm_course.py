"""Launches of Megatron-LM rehearsed: what the course needs to know of its arguments, its tokenizers and its runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron_nca.rehearsal import arguments_only, ending
from megatron_nca.rehearsal.checkouts import Checkout, compile_helpers
from megatron_nca.rehearsal.course import FAILED, Check, Rehearsal
from megatron_nca.rehearsal.megatron_lm import Run
from megatron_nca.rehearsal.scaling import Case, Scaled, scale

TOKENIZER = ("--tokenizer-*", "--tiktoken-*", "--vocab-*", "--merge-file")
PLACES = ("--load", "--data-args-path", "--per-split-data-args-path", "--tensorboard-dir", "--use-mcore-models")
"""Flags that a rehearsal needs no others for: it has places of its own."""


@dataclass(kw_only=True)
class MegatronLMRehearsal(Rehearsal):
    """A launch of Megatron-LM.

    Args:
        checkout: The checkout of Megatron-LM to run.
    """

    checkout: Checkout

    @property
    def case(self) -> Case:
        """The launch's flags."""
        return self.launch.case

    @property
    def flags(self) -> tuple[str, ...]:
        """The launch's flags, as they stand."""
        return self.launch.flags

    @property
    def script(self) -> str:
        """The launch's own script, which another version of Megatron-LM may not have."""
        return self.launch.script.name

    def arguments(self) -> Check:
        """Have Megatron-LM and the plugin read the launch's arguments for all its ranks."""
        compile_helpers(self.checkout)
        script = self.checkout.path / self.script
        if not script.is_file():
            return Check("arguments", FAILED, f"{self.script}: Megatron-LM {_version(self.checkout)} has no such script")
        refused = self.read("--arguments-only", script, _without_writers(self.flags), arguments_only.MARK)
        return refused or self.taken_by(f"Megatron-LM {_version(self.checkout)}")

    def scaled(self) -> Scaled:
        """Scale all but data and length."""
        return replace(scale(self.case, self.checkout), script=self.script)

    def tokenizer_flags(self) -> tuple[str, ...]:
        """Return the flags of the tokenizer, or of what stands in for one that cannot be had."""
        if "tokenizer_problem" in self.resolved:
            # Before 0.18 the end of a document is not counted.
            uncounted = 1 if self.checkout.version < (0, 18) else 0
            return ("--tokenizer-type", "NullTokenizer", "--vocab-size", str(self.ids() - uncounted))
        kept: list[str] = []
        for flag, value in self.case.arguments.items():
            if any(flag.startswith(pattern.rstrip("*")) for pattern in TOKENIZER):
                kept += [flag, *([] if value is True else value if isinstance(value, list) else [_absolute(str(value))])]
        return tuple(kept)

    def run(self, scaled: Scaled, flags: Sequence[str]) -> Run:
        """Return the run of a scaled launch."""
        environment = {**scaled.environment, **self.launch.environment, ending.VARIABLE: "1"}
        # A connection of the launch's own may not be what the scaled layout needs.
        environment["CUDA_DEVICE_MAX_CONNECTIONS"] = scaled.environment["CUDA_DEVICE_MAX_CONNECTIONS"]
        run = Run(self.checkout, tuple(flags), **scaled.layout)  # type: ignore[arg-type]
        return replace(
            run, model=(), script=scaled.script, audited=True, tokenizer=self.tokenizer_flags(), environment=environment
        )

    def differences(self) -> tuple[str, ...]:
        """Flags of the launch that the runs left out."""
        ours = {*self.rehearsed, *PLACES}
        return tuple(flag for flag in self.case.arguments if flag not in ours) if self.rehearsed else ()


def _without_writers(flags: Sequence[str]) -> list[str]:
    """Leave out what would write or start a process when arguments are read."""
    kept, skipping = [], False
    for word in flags:
        if word.startswith("--"):
            skipping = word.startswith(("--tensorboard-dir", "--wandb-", "--use-persistent-ckpt-worker"))
        if not skipping:
            kept.append(word)
    return kept


def _absolute(word: str) -> str:
    return os.path.abspath(word) if os.path.exists(word) else word


def _version(checkout: Checkout) -> str:
    return ".".join(map(str, checkout.version))
