"""The record: what a checkpoint holds of a run's curriculum, and how it is compared with a launch.

A record fixes a run's past. It is written as a dict of plain values, so that any checkpoint format keeps it and any reader
opens it, and read as strictly as it is written: a damaged record, or one of an unknown version, is refused by name.

    version 1    0.1.0: entries, sequence length, seed, weights, phase ends, transition
    version 2    also the run's length, samples given by each source, identity of tokens and texts, stream version
    version 3    also the run's history: its data paths, and what was asked of each text
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from megatron_nca.automaton.source import STREAM_VERSION
from megatron_nca.data.curriculum import Plan
from megatron_nca.data.data_path import Curriculum, Stage
from megatron_nca.data.entry import NCAEntry
from megatron_nca.data.history import History, is_count, shown
from megatron_nca.data.run import Datasets
from megatron_nca.errors import CurriculumError

if TYPE_CHECKING:
    import torch

RECORD = "nca_curriculum"
"""Under which name a framework's checkpoint keeps the record; in Megatron-LM an attribute of ``args``."""

CALLBACK, CALLBACK_RECORD = "NCACallback", "record"
"""Whose state it is in NeMo's, and under which name there."""

OLDER_CALLBACK_RECORD = "note"
"""The name in earlier development versions."""

VERSION = 3
VERSIONS = (1, 2, 3)

TEXT_NUMBER = " text "
"""Between a weight and the number of the text that it is of, where texts are sources of their own."""

COMPARED = {
    "sequence_length": "sequence length",
    "seed": "seed of the data",
    "stream": "stream version",
    "phases": "phases",
    "blended": "blended",
    "text": "weights of the text",
    "tokens": "NCA tokens",
    "texts": "texts",
}
"""What must be the same, with the words for it; an older record does not hold all of it."""


UNCHANGED = {name: COMPARED[name] for name in ("sequence_length", "seed", "stream")}
"""What must be the same where the data path is changed in mid-run."""


@dataclass(frozen=True)
class Record:
    """A run's curriculum, as a checkpoint holds it.

    Attributes:
        sequence_length: Tokens of a sample.
        seed: Seed of the data.
        phases: Each phase's entry, with everything that determines its samples.
        blended: Weight and entry of each ``nca:`` entry of the final blend.
        text: Weight of each text, or how many there are where Megatron weighs them.
        phase_ends: Consumed samples at which each phase ends.
        transition_done: Whether the run has been carried across the switch.
        samples: Training samples of the whole run; None in version 1.
        consumed: Consumed samples when it was written; None in version 1.
        given: How many of those each source gave, entries first, then the text; None in version 1.
        tokens: Identity of NCA's tokens; None in version 1.
        texts: Identity of each text; None in version 1.
        stream: Version of the process's random numbers; None in version 1.
        history: What the run has planned and read so far; None before version 3.
        version: Version of the record's format, as it was written.
    """

    sequence_length: int
    seed: int
    phases: tuple[str, ...]
    blended: tuple[str, ...]
    text: tuple[str, ...]
    phase_ends: tuple[int, ...]
    transition_done: bool
    samples: int | None = None
    consumed: int | None = None
    given: tuple[int, ...] | None = None
    tokens: str | None = None
    texts: tuple[str, ...] | None = None
    stream: str | None = None
    history: History | None = None
    version: int = VERSION

    @classmethod
    def of(cls, plan: Plan, datasets: Datasets, consumed: int, transition_done: bool) -> Record:
        """Describe a run.

        Args:
            plan: Its training plan.
            datasets: What its samples are made from.
            consumed: Samples of all steps so far.
            transition_done: Whether it has been carried across the switch.
        """
        curriculum = plan.curriculum
        return cls(
            sequence_length=plan.sequence_length,
            seed=datasets.seed,
            phases=describe_phases(curriculum),
            blended=tuple(f"{weight} {_describe(entry)}" for entry, weight in curriculum.blended),
            # Where the text lies may change between clusters; how much of it there is to choose from, and how often, may not.
            text=_describe_text(curriculum),
            phase_ends=tuple(phase.end for phase in plan.phases),
            transition_done=transition_done,
            samples=plan.samples,
            consumed=consumed,
            given=plan.schedule.counts(consumed),
            tokens=datasets.tokens,
            texts=datasets.texts,
            stream=STREAM_VERSION,
            history=datasets.history,
        )

    def state_dict(self) -> dict[str, object]:
        """Return it as plain values: numbers, strings, booleans and lists of them."""
        values = asdict(replace(self, history=None))
        state = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return state | {"history": None if self.history is None else self.history.state()}

    @classmethod
    def from_state_dict(cls, state: object) -> Record:
        """Read what ``state_dict`` wrote, now or in an earlier version.

        Raises:
            CurriculumError: The version is not known here, or a value is missing or of another kind.
        """
        if not isinstance(state, Mapping):
            raise CurriculumError(f"the checkpoint's record of its curriculum is damaged: it is {_kind(state)}, not a mapping")
        version = state.get("version")
        if version not in VERSIONS or isinstance(version, bool):
            raise CurriculumError(
                f"the checkpoint's record of its curriculum has version {shown(version)}; this megatron-nca reads versions "
                f"{VERSIONS[0]} to {VERSIONS[-1]}. Resume with the megatron-nca that wrote it, or a later one"
            )
        values: dict[str, Any] = {"version": version}
        for item in fields(cls):
            if item.name == "history":
                values["history"] = _read_history(state, needed=version >= 3)
            elif item.name != "version":
                values[item.name] = _read(state, item.name, needed=version >= 2 or item.name in _VERSION_1)
        return cls(**values)

    def ends_until(self, consumed: int) -> tuple[int, ...]:
        """Return the ends of the phases that have ended at a number of consumed samples."""
        return tuple(end for end in self.phase_ends if end <= consumed)

    @property
    def has_text_phases(self) -> bool:
        """Whether texts are sources of their own, each of which goes on where it was left."""
        return any(TEXT_NUMBER in part for part in (*self.phases, *self.text))

    def describe(self) -> str:
        """Return the curriculum in lines, one for the phases and one for what follows."""
        return f"  phases: {_shown(self.phases)}\n  blended: {_shown(self.blended)}"


_VERSION_1 = ("sequence_length", "seed", "phases", "blended", "text", "phase_ends", "transition_done")
_KINDS: dict[str, tuple[type, bool]] = {
    # name: type of the value, or of its items; whether it is a list
    "sequence_length": (int, False), "seed": (int, False), "phases": (str, True), "blended": (str, True),
    "text": (str, True), "phase_ends": (int, True), "transition_done": (bool, False), "samples": (int, False),
    "consumed": (int, False), "given": (int, True), "tokens": (str, False), "texts": (str, True), "stream": (str, False),
}  # fmt: skip
_MAY_BE_NONE = ("tokens",)


def _read_history(state: Mapping[str, object], needed: bool) -> History | None:
    if not needed or state.get("history", ...) is None:
        return None
    if "history" not in state:
        raise CurriculumError("the checkpoint's record of its curriculum is damaged: it has no 'history'")
    return History.read(state["history"])


def _read(state: Mapping[str, Any], name: str, needed: bool) -> Any:
    if name not in state:
        if needed:
            raise CurriculumError(f"the checkpoint's record of its curriculum is damaged: it has no {name!r}")
        return None
    value, (kind, is_list) = state[name], _KINDS[name]
    if value is None and name in _MAY_BE_NONE:
        return None
    items = value if is_list and isinstance(value, (list, tuple)) else [value]
    if is_list != isinstance(value, (list, tuple)) or not all(_is(item, kind) for item in items):
        wanted = f"a list of {kind.__name__}" if is_list else kind.__name__
        raise CurriculumError(f"the checkpoint's record of its curriculum is damaged: {name!r} is {shown(value)}, not {wanted}")
    return tuple(value) if is_list else value


def _is(value: object, kind: type) -> bool:
    return is_count(value) if kind is int else isinstance(value, kind)


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def describe_phases(curriculum: Curriculum) -> tuple[str, ...]:
    """Return each phase's entry, with everything that determines its samples."""
    return tuple(_describe_stage(curriculum, stage) for stage in curriculum.timed)


def differences(found: Record, launch: Record, compared: Mapping[str, str] = COMPARED) -> list[str]:
    """Compare a checkpoint's record with a launch's.

    Args:
        found: The checkpoint's.
        launch: The launch's.
        compared: What must be the same, with the words for it.

    Returns:
        For each thing that differs, lines that lay both side by side; nothing where they agree. What an older record does not
        hold, and a text whose identity cannot be told on either side, is not compared.
    """
    rows = []
    for name, words in compared.items():
        before, now = getattr(found, name), getattr(launch, name)
        if before is None or now is None or _agree(name, before, now):
            continue
        rows.append(f"  {words}:\n    checkpoint: {_shown(before)}\n    launch:     {_shown(now)}")
    return rows


def _agree(name: str, before: Any, now: Any) -> bool:
    if name != "texts":
        return bool(before == now)
    return len(before) == len(now) and all(one == other or not (one and other) for one, other in zip(before, now, strict=True))


def moved_end(found: Record, launch: Record, consumed: int) -> tuple[int, int] | None:
    """Return the (checkpoint's, launch's) end of the first phase whose end was passed on one side alone, or otherwise."""
    for before, now in zip(found.phase_ends, launch.phase_ends, strict=False):
        if before != now and min(before, now) <= consumed:
            return before, now
    return None


def given_at(record: Record, consumed: int) -> tuple[int, ...] | None:
    """Return what each source had given, where the record tells it for this number of consumed samples."""
    return record.given if record.consumed == consumed else None


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _describe_stage(curriculum: Curriculum, stage: Stage) -> str:
    """Write everything that determines a stage's samples; its batch may be another at every start, as the run's may."""
    if stage.is_pure_nca and len(stage.nca) == 1:
        return _describe(replace(stage.nca[0][0], tokens=stage.tokens, ramp=stage.ramp, floor=stage.floor))
    head = f"phase:tokens={stage.tokens},ramp={stage.ramp},floor={stage.floor}"
    entries = [f"{weight} {_describe(entry)}" for entry, weight in stage.nca]
    return " + ".join([head, *entries, *_describe_texts(curriculum, stage)])


def _describe_text(curriculum: Curriculum) -> tuple[str, ...]:
    """Write the final blend's text: its weights, and in phases which of the texts they are of."""
    if not curriculum.text_is_one:
        return _describe_texts(curriculum, curriculum.last)
    return tuple(f"{weight:g}" for weight in curriculum.text_weights or ()) or (str(len(curriculum.text)),)


def _describe_texts(curriculum: Curriculum, stage: Stage) -> tuple[str, ...]:
    numbers = {prefix: number for number, prefix in enumerate(curriculum.prefixes, 1)}
    texts = zip(stage.texts, stage.text_weights, strict=True)
    return tuple(f"{float(weight):g}{TEXT_NUMBER}{numbers[prefix]}" for prefix, weight in texts)


def _describe(entry: NCAEntry) -> str:
    """Write everything that determines an entry's samples, in one form however the user wrote it."""
    parts: Sequence[str] = [entry.config.to_uri()]
    defaults = NCAEntry(text="", config=entry.config)
    keys = ("tokens", "ramp", "floor", "rules", "trajectory", "vocab_offset", "loss", "control", "seed")
    changed = [f"{key}={getattr(entry, key)}" for key in keys if getattr(entry, key) != getattr(defaults, key)]
    return ",".join([*parts, *changed])


def record_of_callback(state: Mapping[str, object]) -> object:
    """Return the plain values out of the state of NeMo's callback, None where it has none."""
    return state.get(CALLBACK_RECORD, state.get(OLDER_CALLBACK_RECORD))


def packed(record: object) -> torch.Tensor:
    """Return a record's plain values as a tensor, for checkpoints that hold nothing else: uint8 (bytes of its JSON,)."""
    import torch

    return torch.frombuffer(bytearray(json.dumps(record).encode()), dtype=torch.uint8)


def unpacked(kept: Any) -> object:
    """Return the plain values out of ``packed``'s tensor; what holds none comes back as it is, for ``Record`` to refuse."""
    try:
        return json.loads(bytes(kept.tolist()))
    except (AttributeError, TypeError, ValueError, RecursionError):
        return kept
