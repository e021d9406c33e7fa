"""Going on from a checkpoint: the launch's curriculum beside the checkpoint's.

The samples behind the checkpoint must be those that the run has not read yet, and the transition must be done once. Whatever
would break that is refused, both sides laid out; what the user overrides is refused only where samples would be read twice or
never, or the transition be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron_nca.data.curriculum import Blend, mentions_nca, read_blend
from megatron_nca.data.run import DataInfo
from megatron_nca.errors import CurriculumError
from megatron_nca.stacks import Stack
from megatron_nca.training.options import Options
from megatron_nca.training.record import COMPARED, UNCHANGED, Record, describe_phases, differences, given_at, moved_end
from megatron_nca.training.run_info import RunInfo
from megatron_nca.training.transition import State

BEFORE, AFTER = "before-switch", "after-switch"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of the curriculum.

    Attributes:
        record: The checkpoint's record, or None where it has none.
        consumed: Samples of all steps before it.
    """

    record: Record | None
    consumed: int

    @property
    def is_start(self) -> bool:
        """Whether it holds weights to start from and no step of a run."""
        return self.record is None and self.consumed == 0


def common_phases(record: Record, blends: Sequence[Blend | None] | None) -> int:
    """Count the first phases that a launch shares with a record; an override keeps their ends, and no others.

    Args:
        record: The checkpoint's.
        blends: The launch's train, valid and test data, or None where they are not known yet.
    """
    blend = blends[0] if blends else None
    if not mentions_nca(blend):
        return 0
    phases = describe_phases(read_blend(blend).measured())
    same = [before == now for before, now in zip(record.phases, phases, strict=False)]
    return same.index(False) if False in same else len(same)


def data_info(info: RunInfo, checkpoint: Checkpoint | None, options: Options) -> DataInfo:
    """Return what the dataset builder is told of a run.

    Args:
        info: What the stack tells of it.
        checkpoint: The checkpoint that it goes on from, or None.
        options: The options that the user gave.
    """
    record = checkpoint.record if checkpoint else None
    # A loop of one's own says how far it is when it restores, and in no other way.
    consumed = max(info.consumed_samples, checkpoint.consumed if checkpoint else 0)
    batches_from = 0 if info.counts_from_start else consumed
    ended = record.ends_until(batches_from) if record else ()
    if record and options.override_curriculum:
        ended = ended[: common_phases(record, info.blends)]
    steps = None if info.train_iterations is None else max(info.train_iterations - info.iteration, 0)
    known = DataInfo(info.padded_vocab_size, consumed, batches_from, ended, steps)
    if record is None or options.override_curriculum:
        return known
    return replace(known, history=record.history, texts=record.texts or (), amends=options.amend_curriculum)


def state_of(checkpoint: Checkpoint, options: Options) -> State:
    """Tell whether the transition has been done at a checkpoint that has been compared with the launch."""
    record = checkpoint.record
    done = options.resume_as == AFTER if record is None else record.transition_done
    return State.DONE if done else State.AHEAD


def compare(checkpoint: Checkpoint, launch: Record | None, has_switch: bool, options: Options, stack: Stack) -> list[str]:
    """Compare a checkpoint with a launch.

    Args:
        checkpoint: What it says.
        launch: The launch's record, None where it trains without a word of ours.
        has_switch: Whether the launch's plan has a switch.
        options: The user's.
        stack: The stack whose spelling errors use.

    Returns:
        Lines worth telling where the run goes on.

    Raises:
        CurriculumError: It cannot go on like this.
    """
    if launch is None:
        _refuse_forgotten(checkpoint, options, stack)
        return []
    if options.amend_curriculum and not checkpoint.is_start:
        _refuse_unknown_past(checkpoint, stack)
    if checkpoint.record is None:
        if has_switch and not checkpoint.is_start and options.resume_as is None:
            _refuse_unknown_place(checkpoint, stack)
        return []
    found = checkpoint.record
    amended = is_amended(found, launch)
    rows = differences(found, launch, UNCHANGED if amended else COMPARED)
    if rows and not options.override_curriculum:
        raise CurriculumError(
            "the checkpoint was written under another curriculum:\n" + "\n".join(rows) + "\nResume with the same nca: entries, "
            f"texts, tokenizer, sequence length and seed, or give {stack.option('amend_curriculum', True)} to go on with the "
            f"launch's and every source where it was left, or {stack.option('override_curriculum', True)} to go on with the "
            "launch's from the checkpoint's position"
        )
    if amended:
        return []
    if rows:
        _refuse_broken_override(found, launch, checkpoint.consumed, has_switch, stack)
    else:
        _refuse_moved_end(found, launch, checkpoint.consumed, stack)
    return _length_lines(found, launch, checkpoint.consumed, stack)


def _refuse_forgotten(checkpoint: Checkpoint, options: Options, stack: Stack) -> None:
    record = checkpoint.record
    if record is None or options.override_curriculum:
        return
    raise CurriculumError(
        "the checkpoint was written under a curriculum, and this launch has no nca: entry in its training data, so its text "
        f"would start at another sample:\n{record.describe()}\nGive the same entries again in {stack.word('data_path')}, also "
        f"after the switch, or {stack.option('override_curriculum', True)}"
    )


def _refuse_unknown_place(checkpoint: Checkpoint, stack: Stack) -> None:
    raise CurriculumError(
        f"the checkpoint, at {checkpoint.consumed:,} samples, was written without nca: entries, so it does not say where it "
        f"stands; give {stack.option('resume_as', BEFORE)} (the transition is still to come) or "
        f"{stack.option('resume_as', AFTER)} (its embeddings are the text's), or load it by {stack.word('new_start')}"
    )


def _refuse_unknown_past(checkpoint: Checkpoint, stack: Stack) -> None:
    record = checkpoint.record
    if record is not None and record.history is not None:
        return
    what = "holds no record, which" if record is None else f"has a record of version {record.version}, which"
    raise CurriculumError(
        f"{stack.option('amend_curriculum', True)}: the checkpoint, at {checkpoint.consumed:,} samples, {what} does not tell "
        "what each source has given; start once with the run's own data path, behind phase: where it has no nca: entry (as in "
        "phase: 0.7 A 0.3 B), save, then change it"
    )


def _refuse_moved_end(found: Record, launch: Record, consumed: int, stack: Stack) -> None:
    moved = moved_end(found, launch, consumed)
    if moved:
        raise CurriculumError(
            f"a phase's end was passed by the checkpoint, at {consumed:,} samples, or would be by this launch:\n"
            f"  checkpoint: after {moved[0]:,} samples\n  launch:     after {moved[1]:,} samples\nResume with the "
            f"{stack.word('batch')} of the checkpoint"
        )


def _refuse_broken_override(found: Record, launch: Record, consumed: int, has_switch: bool, stack: Stack) -> None:
    """Refuse an override under which samples would be read twice or never, or the transition be lost or done twice."""
    switch = launch.phase_ends[-1] if has_switch else None
    if found.transition_done and switch is not None and switch > consumed:
        raise CurriculumError(
            f"{stack.option('override_curriculum', True)}: the checkpoint, at {consumed:,} samples, lies behind its switch to "
            f"text, and the launch's phases end after {switch:,}, so the run would be in a phase that it never began:\n"
            f"  checkpoint: {found.describe().strip()}\n  launch:     {launch.describe().strip()}\nGive phases that end before "
            "the checkpoint, or the checkpoint's own"
        )
    if found.has_text_phases or launch.has_text_phases:
        raise CurriculumError(
            f"{stack.option('override_curriculum', True)}: with texts in phases samples would be read twice or left out; "
            "resume with the checkpoint's own data path, or begin a new run with its weights"
        )
    before, now = given_at(found, consumed), launch.given
    if before is None or now is None or launch.consumed != consumed:
        return
    texts = [given[-1] if len(given) > entries else 0 for given, entries in (
        (before, len(found.phases) + len(found.blended)), (now, len(launch.phases) + len(launch.blended)))]  # fmt: skip
    if texts[0] != texts[1]:
        raise CurriculumError(
            f"{stack.option('override_curriculum', True)}: the run has read {texts[0]:,} samples of the text, and under the "
            f"launch's curriculum it would go on at sample {texts[1]:,}, so samples would be "
            f"{'read twice' if texts[1] < texts[0] else 'left out'}; give phases that end where the checkpoint's did"
        )


def is_amended(found: Record, launch: Record) -> bool:
    """Tell whether a launch changes the data path of a checkpoint's run."""
    if found.history is None or launch.history is None:
        return False
    return len(launch.history.segments) > len(found.history.segments)


def _keeps_order(found: Record, launch: Record) -> bool:
    """Tell whether a launch asks of each text first what the run has asked of it, and what is more behind that."""
    if found.history is None or launch.history is None:
        return False
    pairs = zip(found.history.readings, launch.history.readings, strict=False)
    return all(now.asked[: len(before.asked)] == before.asked for before, now in pairs)


def _length_lines(found: Record, launch: Record, consumed: int, stack: Stack) -> list[str]:
    """Tell of another length of the run, for which Megatron puts a text in another order, where no history keeps it."""
    if found.samples is None or found.samples == launch.samples or not launch.text or launch.text == ("0",):
        return []
    if _keeps_order(found, launch):
        return []
    return [
        f"the checkpoint's run was planned for {found.samples:,} samples and this launch for {launch.samples:,} "
        f"({stack.word('length')}): Megatron orders a text by how many samples are asked of it, so what follows is not what "
        "the longer or shorter run would have read"
    ]
