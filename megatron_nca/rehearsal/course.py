"""A launch rehearsed: its arguments for all ranks, then two short runs with a kill between them, each part one `Check`.

The first run trains on NCA, saves one step before the switch, crosses it and is killed three steps into the text. The second
goes on from the checkpoint, crosses the switch again and runs to the end; its losses must be those of the first, bit for bit.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import megatron_nca
from megatron_nca.data.curriculum import Plan
from megatron_nca.data.phase_word import is_ours
from megatron_nca.rehearsal import ending, lengths
from megatron_nca.rehearsal.launching import Launch, arguments
from megatron_nca.rehearsal.ranks import RunError
from megatron_nca.rehearsal.scaling import Case, Scaled, has_transformer_engine, left_out
from megatron_nca.rehearsal.training_log import TrainingLog

OK, FAILED, CHANGED = "ok", "FAILED", "changed"
BEFORE, AFTER = 1, 3
"""Steps from the checkpoint to the switch, and from the switch to the kill. Between them no other checkpoint falls due."""

FAULT = re.compile(
    r"^(?:\[rank\d+\]:\s*)?"
    r"(megatron-nca: \w+Error: .*|[\w.]+\.py: error: .*|(?:\w+\.)*\w*(?:Error|Exception|Interrupt)(?:: .*)?)$",
    re.M,
)
SPLIT = "90,5,5"
START_SECONDS, RUN_SECONDS = 300.0, 900.0


@dataclass(frozen=True)
class Check:
    """One thing that was rehearsed.

    Args:
        name: What.
        state: `ok`, `FAILED`, or `changed` for what is not as in the launch.
        detail: What was seen.
    """

    name: str
    state: str
    detail: str


@dataclass
class Rehearsal(ABC):
    """A launch and where it is rehearsed; what a framework has of its own is a subclass's.

    Args:
        launch: The launch.
        folder: Folder for checkpoints and logs.
        text: Prefix of the text to read where one of the launch is not on this machine.
        plan_of: Gives the plan of a launch's flags.
    """

    launch: Launch
    folder: Path
    text: str | None
    plan_of: Callable[[Sequence[str]], Plan]
    resolved: dict[str, Any] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    rehearsed: tuple[str, ...] = ()

    @property
    @abstractmethod
    def case(self) -> Case:
        """The launch's flags, by Megatron-LM's names."""

    @property
    @abstractmethod
    def flags(self) -> tuple[str, ...]:
        """The same as words, for `plan`."""

    @abstractmethod
    def arguments(self) -> Check:
        """Have the framework and the plugin read the launch's arguments for all its ranks."""

    @abstractmethod
    def scaled(self) -> Scaled:
        """Scale all but data and length."""

    @abstractmethod
    def tokenizer_flags(self) -> tuple[str, ...]:
        """Return the flags of the tokenizer, or of what stands in for one that cannot be had."""

    @abstractmethod
    def run(self, scaled: Scaled, flags: Sequence[str]) -> Any:
        """Return the run of a scaled launch, a `RankedRun` with `flags`, `plugin` and `audited`."""

    @abstractmethod
    def differences(self) -> tuple[str, ...]:
        """Return what the runs left out of the launch."""

    def model(self) -> Iterator[Check]:
        """Yield what is to be said of where the model comes from."""
        yield from ()

    def read(self, mode: str, script: Path, words: Sequence[str], mark: str) -> Check | None:
        """Run the launch's script up to where its ranks would meet.

        Args:
            mode: The mode of `python -m megatron_nca.rehearsal` that ends it there.
            script: The script.
            words: Its arguments.
            mark: What stands before the JSON that it prints, which becomes `resolved`.

        Returns:
            What was refused, or None.
        """
        ran = subprocess.run(
            [sys.executable, "-m", "megatron_nca.rehearsal", mode, str(script), *words],
            cwd=self.folder,
            env=self._environment(self.launch.ranks),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        line = re.search(rf"^{mark}(.*)$", ran.stdout, re.M)
        if ran.returncode == 0 and line is None:
            return Check("arguments", FAILED, f"{script.name}: ended without a training")
        if ran.returncode or line is None:
            return Check("arguments", FAILED, fault(ran.stderr + "\n" + ran.stdout))
        self.resolved = json.loads(line[1])
        return None

    def taken_by(self, framework: str) -> Check:
        """Return that the launch's arguments were taken."""
        ranks, batch = self.launch.ranks, self.resolved["global_batch_size"]
        return Check("arguments", OK, f"taken by {framework} for {ranks} ranks, {batch} samples a step")

    def _environment(self, ranks: int) -> dict[str, str]:
        project = str(Path(megatron_nca.__file__).parents[1])
        return {
            **os.environ,
            **{"CUDA_DEVICE_MAX_CONNECTIONS": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            **self.launch.environment,
            "PYTHONPATH": os.pathsep.join(filter(None, (project, os.environ.get("PYTHONPATH")))),
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks)},
            ending.VARIABLE: "1",
        }

    def runs(self, plan: Plan) -> Iterator[Check]:
        """Scale the launch and run it, killed and resumed; what was changed comes first.

        Args:
            plan: Plan of the whole run.
        """
        case, scaled = self.case, self.scaled()
        for check in self.model():
            yield check
            if check.state == FAILED:
                return
        yield self._tokenizer()
        yield _precision(case)
        yield _layout(self.launch.ranks, scaled)
        batch = int(str(self.resolved["global_batch_size"]))
        length = lengths.Length(plan.samples, plan.sequence_length, batch)
        replicas = scaled.layout["data_parallel"]
        replaced_flags = lengths.Scaling(case, length, replicas, self._text_of).flags()
        if self.replaced:
            # Of a small text a thousandth may be no document at all.
            replaced_flags += ["--split", SPLIT]
        yield self._texts()
        if self.missing:
            return
        yield from self._killed_and_resumed(scaled, replaced_flags, self.plan_of([*replaced_flags, *self.tokenizer_flags()]))

    def _tokenizer(self) -> Check:
        problem, kind = self.resolved.get("tokenizer_problem"), self.case.arguments.get("--tokenizer-type")
        if problem is None:
            return Check("tokenizer", OK, f"{kind}, {self.resolved['vocabulary']:,} ids")
        return Check("tokenizer", CHANGED, f"{kind} cannot be had here ({problem}): numbers below {self.ids():,} instead")

    def ids(self) -> int:
        """Return how many ids the stand-in of a tokenizer has: as many as the launch says, or GPT-2."""
        return int(self.case.arguments.get("--vocab-size") or 50_257)

    def _text_of(self, prefix: str) -> str:
        if not lengths.has_files(prefix):
            (self.missing if self.text is None else self.replaced).append(prefix)
        return os.path.abspath(prefix if self.text is None or lengths.has_files(prefix) else self.text)

    def _texts(self) -> Check:
        absent = ", ".join(dict.fromkeys(self.missing or self.replaced))
        if self.missing:
            return Check("text", FAILED, f"{absent}: not on this machine; --text PREFIX rehearses with another")
        if absent:
            return Check("text", CHANGED, f"{absent}: not on this machine, {self.text}, split {SPLIT}, instead")
        return Check("text", OK, "the launch's own")

    def _killed_and_resumed(self, scaled: Scaled, replaced_flags: Sequence[str], plan: Plan) -> Iterator[Check]:
        switch = plan.batches.batches_until(plan.switch if plan.switch is not None else plan.samples // 2)
        saved, killed = switch - BEFORE, switch + AFTER
        run = self.run(scaled, (*scaled.flags, *replaced_flags, *self._checkpoints(saved)))
        self.rehearsed = run.command
        try:
            first = run.kill_at(killed, self.folder / "killed", RUN_SECONDS)
            yield from self._crossed(first, plan, switch)
            yield Check("checkpoint", OK, f"{self._checkpoint_format()} after iteration {saved}")
        except RunError as error:
            yield Check("run", FAILED, fault(str(error)))
            return
        load = ("--load", str(self.folder / "checkpoints"))
        try:
            second = replace(run, flags=(*run.flags, *load)).complete(self.folder / "resumed", RUN_SECONDS)
        except RunError as error:
            yield self._failed_with_control(fault(str(error)), run, saved, killed)
            return
        compared = _compared(first, second, saved, killed)
        yield compared if compared.state == OK else self._with_control(compared, run, saved, killed)
        yield from self._ended(second)

    def _failed_with_control(self, problem: str, run: Any, saved: int, killed: int) -> Check:
        """Return that a run does not go on from its checkpoint, and whether the text alone, without the plugin, does."""
        begun = f"does not go on from {saved}: {problem}"
        try:
            self._control(run, killed)
        except RunError as error:
            alone = fault(str(error))
            end = "so without the plugin" if alone == problem else f"nor does the text alone, without the plugin: {alone}"
        else:
            end = "the text alone, without the plugin, does"
        return Check("kill, resume", FAILED, f"{begun}; {end}")

    def _with_control(self, compared: Check, run: Any, saved: int, killed: int) -> Check:
        """Return whether the text alone, without the plugin, resumes with other losses too, as with some of FP8's recipes."""
        try:
            first, second = self._control(run, killed)
        except RunError as error:
            return replace(compared, detail=f"{compared.detail}; the text alone does not run: {fault(str(error))}")
        alone = _compared(first, second, saved, killed)
        if alone.state == OK:
            return replace(compared, detail=f"{compared.detail}; of the text alone, without the plugin, they are equal")
        return Check(compared.name, CHANGED, f"{compared.detail}; so they do without the plugin: {alone.detail}")

    def _control(self, run: Any, killed: int) -> tuple[TrainingLog, TrainingLog]:
        """Run the text alone, without the plugin, killed and resumed."""
        folder = self.folder / "control"
        flags = without_plugin(run.flags, self.folder / "checkpoints", folder / "checkpoints")
        control = replace(run, flags=flags, plugin=False, audited=False)
        first = control.kill_at(killed, folder / "killed", RUN_SECONDS)
        load = ("--load", str(folder / "checkpoints"))
        return first, replace(control, flags=(*flags, *load)).complete(folder / "resumed", RUN_SECONDS)

    def _checkpoint_format(self) -> str:
        return str(self.resolved.get("ckpt_format") or self.case.arguments.get("--ckpt-format") or "Megatron-LM's own format")

    def _checkpoints(self, saved: int) -> tuple[str, ...]:
        evaluates = int(self.case.arguments.get("--eval-iters") or 0) > 0
        return (
            *("--log-interval", "1", "--eval-interval", str(saved + BEFORE + 1), "--eval-iters", "1" if evaluates else "0"),
            *("--save", str(self.folder / "checkpoints"), "--save-interval", str(saved)),
            *("--data-cache-path", str(self.folder / "index"), "--make-vocab-size-divisible-by", "128"),
        )

    def _crossed(self, log: TrainingLog, plan: Plan, switch: int) -> Iterator[Check]:
        ranks = sorted((self.folder / "killed").glob("rank*.log"))
        outputs = [path.read_text(errors="replace") for path in ranks]
        yield Check("NCA", OK, f"iterations 1 to {switch}, loss {_ends(log, 1, switch)}")
        if plan.switch is not None:
            found = [re.search(r"audit: rank \d+: (.*)", output) for output in outputs]
            kept = all("audit: nothing went back after a step" in output for output in outputs)
            if not all(found) or not kept:
                yield Check("switch", FAILED, f"not seen on every rank after iteration {switch}")
                return
            yield Check("switch", OK, f"on every rank: {found[0][1] if found[0] else ''}, nothing went back after a step")

    def _ended(self, log: TrainingLog) -> Iterator[Check]:
        last = max(record.iteration for record in log.iterations)
        yield Check("text", OK, f"to iteration {last}, loss {_ends(log, last, last)}")
        if log.validations:
            yield Check("validation", OK, f"{len(log.validations)} times, loss {log.validations[-1].loss:.4g}")


def fault(output: str) -> str:
    """Return the last line of an output that says what was wrong; of an assertion without words, its code."""
    found = list(FAULT.finditer(output))
    if not found:
        lines = output.strip().splitlines()
        return lines[-1] if lines else "ended without a word"
    chosen = next((match for match in found if match[1].startswith("megatron-nca: ")), found[-1])
    if chosen[1] == "AssertionError":
        code = output[: chosen.start()].strip().splitlines()
        return f"AssertionError: {next((line.strip() for line in reversed(code) if 'assert' in line), '')}"
    return chosen[1]


def without_plugin(flags: Sequence[str], folder: Path, replaced_flags: Path) -> tuple[str, ...]:
    """Flags of the same run on its last text alone, with a folder of its own for checkpoints."""
    kept: list[str] = []
    for flag, value in arguments(flags).items():
        words = [] if value is True else value if isinstance(value, list) else [value]
        if flag.endswith("data-path"):
            last = max((place for place, word in enumerate(words) if is_ours(word)), default=-1)
            words = words[last + 1 :]
        if not flag.startswith("--nca-"):
            kept += [flag, *(str(replaced_flags) if word == str(folder) else word for word in words)]
    return tuple(kept)


def _precision(case: Case) -> Check:
    asked = lengths.describe(case.arguments)
    given = [flag for flag in case.arguments if left_out(flag, True) < left_out(flag, False)]
    if not has_transformer_engine() and given:
        what = f"Transformer Engine's Python is not installed here, so without {', '.join(given)}"
        return Check("precision", CHANGED, f"{asked}: {what}")
    return Check("precision", OK, asked + (", emulated" if case.has("--fp8-format") else ""))


def _layout(ranks: int, scaled: Scaled) -> Check:
    sizes = ", ".join(f"{name.replace('_', ' ')} {size}" for name, size in scaled.layout.items() if size > 1) or "one rank"
    here = scaled.layout["context_parallel"] * scaled.layout["pipeline_parallel"] * scaled.layout["tensor_parallel"]
    here *= scaled.layout["data_parallel"]
    return Check("layout", OK if here == ranks else CHANGED, f"{here} of {ranks} ranks: {sizes}")


def _ends(log: TrainingLog, first: int, last: int) -> str:
    losses = log.losses
    values = [losses[one] for one in (first, last) if one in losses]
    return " to ".join(f"{value:.4g}" for value in dict.fromkeys(values)) or "not printed"


def _compared(first: TrainingLog, second: TrainingLog, saved: int, killed: int) -> Check:
    common = sorted(set(first.losses) & set(second.losses))
    if not common:
        return Check(
            "kill, resume", FAILED, f"no loss of the resumed run, from {saved}, is among those up to the kill at {killed}"
        )
    other = [one for one in common if first.losses[one] != second.losses[one]]
    if other:
        worst = max(abs(first.losses[one] - second.losses[one]) for one in other)
        detail = f"resumed from {saved}, the losses differ from iteration {other[0]} on, by up to {worst:.2g}"
        return Check("kill, resume", FAILED, detail)
    return Check("kill, resume", OK, f"killed after {killed}, resumed from {saved}: losses of {_list(common)} are equal")


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def real_switch(plan: Plan) -> Mapping[str, int] | None:
    """Return where the whole run's switch will be: after which iteration, and after how many samples and tokens."""
    if plan.switch is None:
        return None
    until = plan.batches.batches_until(plan.switch)
    return {"iteration": until, "samples": plan.switch, "tokens": plan.switch * plan.sequence_length}
