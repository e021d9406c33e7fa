"""Launches of Megatron-Bridge rehearsed: what the course needs to know of its config, its tokenizers and its runs."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_nca.rehearsal import ending
from megatron_nca.rehearsal.bridge import names, process
from megatron_nca.rehearsal.bridge.running import BridgeRun
from megatron_nca.rehearsal.course import CHANGED, FAILED, Check, Rehearsal
from megatron_nca.rehearsal.launching import arguments
from megatron_nca.rehearsal.scaling import (
    Case,
    Scaled,
    environment_of,
    is_hybrid,
    layout_of,
    sizes_of,
)


class BridgeRehearsal(Rehearsal):
    """A launch of Megatron-Bridge."""

    @property
    def case(self) -> Case:
        """The launch's config as flags, once its arguments have been read."""
        return Case(self.launch.script.name, arguments(self.flags))

    @property
    def flags(self) -> tuple[str, ...]:
        """The same as words."""
        return tuple(self.resolved.get("flags", ()))

    def arguments(self) -> Check:
        """Have Bridge and the plugin read the launch's config for all its ranks."""
        refused = self.read("--config-only", self._script, self.launch.flags, process.MARK)
        return refused or self.taken_by(f"Megatron-Bridge {importlib.metadata.version('megatron-bridge')}")

    @property
    def _script(self) -> Path:
        return self.launch.script.resolve()

    def model(self) -> Iterator[Check]:
        """Tell where a model's figures could not be had, and what of its kind is not rehearsed."""
        if is_hybrid(self.case):
            yield Check("model", FAILED, "state-space layers are rehearsed for Megatron-LM, not for Megatron-Bridge")
        if self.case.has("--mtp-num-layers") and not names.has_engine():
            yield Check("model", CHANGED, "Transformer Engine's Python is not installed, so without multi-token prediction")
        if problem := self.resolved.get("model_problem"):
            yield Check("model", CHANGED, str(problem))

    def scaled(self) -> Scaled:
        """Scale all but data and length."""
        case = self.case
        layout = layout_of(case)
        flags = sizes_of(case, layout, hybrid=False)
        if case.has("--first-last-layers-bf16") and layout["pipeline_parallel"] == 1:
            flags += ["--num-layers", "4"]
        if not names.has_engine() or layout["context_parallel"] > 1:
            flags += ["--transformer-impl", "local"]
        for name, size in layout.items():
            if name != "data_parallel":
                kind = {"tensor_parallel": "tensor-model", "pipeline_parallel": "pipeline-model"}.get(name)
                kind = kind or {"expert_parallel": "expert-model"}.get(name, "context")
                flags += [f"--{kind}-parallel-size", str(size)]
        return Scaled(self.launch.script.name, tuple(flags), layout, environment_of(case))

    def tokenizer_flags(self) -> tuple[str, ...]:
        """Return the flags of the stand-in of a tokenizer that cannot be had; any other is the config's own."""
        if "tokenizer_problem" in self.resolved:
            return ("--tokenizer-type", "NullTokenizer", "--vocab-size", str(self.ids()))
        return ()

    def run(self, scaled: Scaled, flags: Sequence[str]) -> BridgeRun:
        """Return the run of a scaled launch."""
        environment = {**scaled.environment, **self.launch.environment, ending.VARIABLE: "1"}
        environment["CUDA_DEVICE_MAX_CONNECTIONS"] = scaled.environment["CUDA_DEVICE_MAX_CONNECTIONS"]
        layout = scaled.layout
        ranks = layout["tensor_parallel"] * layout["pipeline_parallel"] * layout["context_parallel"] * layout["data_parallel"]
        return BridgeRun(
            script=self._script,
            words=self.launch.flags,
            flags=(*flags, *self.tokenizer_flags()),
            ranks=ranks,
            figures="model_problem" in self.resolved,
            environment=environment,
        )

    def differences(self) -> tuple[str, ...]:
        """Settings of the launch's config that the runs left out."""
        left_out = self.folder / "killed" / process.LEFT_OUT
        return tuple(json.loads(left_out.read_text(encoding="utf-8"))) if left_out.exists() else ()
