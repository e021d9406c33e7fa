"""The curriculum's note in a checkpoint: what was planned, where phases ended, whether the transition was done.

A note is a dict of plain values, so that any checkpoint format keeps it and any reader opens it. Resuming compares it with
the launch: the entries, the sequence length and what follows must be the same, or the samples would be others than those the
run has not seen yet.
"""

from __future__ import annotations

from typing import Any

from megatron_nca.data.curriculum import Plan
from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import CurriculumError

NOTE = "nca_curriculum"
"""Under which name a framework's checkpoint keeps the note; in Megatron-LM an attribute of ``args``."""

NOTE_VERSION = 1

Note = dict[str, Any]

COMPARED = ("sequence_length", "seed", "phases", "blended", "text")


def make_note(plan: Plan, seed: int, transition_done: bool) -> Note:
    """Describe a plan.

    Args:
        plan: The training plan.
        seed: The run's, of entries without one of their own.
        transition_done: Whether the run has been carried across the switch.

    Returns:
        The note.
    """
    curriculum = plan.curriculum
    return {
        "version": NOTE_VERSION,
        "sequence_length": plan.sequence_length,
        "seed": seed,
        "phases": [_describe(entry) for entry in curriculum.phases],
        "blended": [f"{weight} {_describe(entry)}" for entry, weight in curriculum.blended],
        # Where the text lies may change between clusters; how much of it there is to choose from, and how often, may not.
        "text": [f"{weight:g}" for weight in curriculum.text_weights or ()] or [str(len(curriculum.text))],
        "phase_ends": [phase.end for phase in plan.phases],
        "transition_done": transition_done,
    }


def ended_phases(note: Note | None, consumed_samples: int) -> tuple[int, ...]:
    """Return the ends of the phases that a checkpointed run has finished."""
    ends = note["phase_ends"] if note else []
    return tuple(end for end in ends if end <= consumed_samples)


def check_note(found: Note, expected: Note, override: str) -> None:
    """Refuse to continue a run with another curriculum.

    Args:
        found: The checkpoint's note.
        expected: The launch's.
        override: What the user would give to go on all the same.

    Raises:
        CurriculumError: They differ; the message lays both side by side.
    """
    differing = [key for key in COMPARED if found[key] != expected[key]]
    if not differing:
        return
    rows = [f"  {key}:\n    checkpoint: {found[key]}\n    launch:     {expected[key]}" for key in differing]
    raise CurriculumError(
        "the checkpoint was written under another curriculum:\n" + "\n".join(rows) + "\nResume with the same nca: entries, "
        f"sequence length and seed, or give {override} to go on with the launch's from the checkpoint's position"
    )


def _describe(entry: NCAEntry) -> str:
    """Write everything that determines an entry's samples, in one form however the user wrote it."""
    parts = [entry.config.to_uri()]
    defaults = NCAEntry(text="", config=entry.config)
    for key in ("tokens", "ramp", "floor", "rules", "trajectory", "vocab_offset", "loss", "seed"):
        if getattr(entry, key) != getattr(defaults, key):
            parts.append(f"{key}={getattr(entry, key)}")
    return ",".join(parts)
