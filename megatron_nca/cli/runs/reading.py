"""What a run has written -> its losses: TensorBoard's events, Megatron-LM's log, a CSV file, the quickstart's result.

a folder with events.out.tfevents.*    Megatron-LM, Megatron-Bridge, NeMo: scalars, and Megatron-LM's arguments as text
a log                                  Megatron-LM's lines of iterations and validations, and its table of arguments
*.csv                                  NeMo's metrics.csv, or any with columns of those names
result.json                            of examples/quickstart
"""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

from megatron_nca.cli.common import UsageError, need
from megatron_nca.cli.runs.curves import VALIDATION, Point, Run, facts_of, reading_of, run_of_scalars

EVENTS, RESULT = "events.out.tfevents.*", "result.json"
STEP_COLUMNS = ("step", "iteration", "global_step")
ALIASES = {"text_tokens": "text/tokens", "tokens": "text/tokens", "nca_tokens": "nca/tokens"}
"""Names of columns."""
_ARGUMENT = re.compile(r"^(?:\[rank\d+\]:?)?\s+(\w+) \.{3,} (.*)$", re.MULTILINE)


def read_run(place: Path, sequence_length: int | None = None) -> Run:
    """Read a run.

    Args:
        place: A folder or a file.
        sequence_length: Tokens of a sample, where the run does not tell.

    Raises:
        UsageError: Nothing there can be read as a run.
    """
    if place.is_dir():
        return _folder(place, sequence_length)
    try:
        text = place.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{place}: cannot be read ({error.strerror})") from None
    if place.suffix == ".csv":
        return _csv(place, text, sequence_length)
    if place.suffix == ".json":
        return _result(place, text)
    return _log(place, text, sequence_length)


def _folder(place: Path, sequence_length: int | None) -> Run:
    if any(place.rglob(EVENTS)):
        return _events(place, sequence_length)
    if (place / RESULT).is_file():
        return read_run(place / RESULT)
    for pattern in ("**/metrics.csv", "*.csv", "*.log"):
        found = sorted(place.glob(pattern))
        if len(found) > 1:
            raise UsageError(f"{place}: holds {len(found)} files {pattern}; name one of them")
        if found:
            return read_run(found[0], sequence_length)
    raise UsageError(f"{place}: holds no events of TensorBoard, no {RESULT}, metrics.csv or log")


def _events(place: Path, sequence_length: int | None) -> Run:
    accumulator = need("tensorboard.backend.event_processing.event_accumulator", extra="tensorboard")
    scalars: dict[str, list[tuple[int, float]]] = {}
    arguments: dict[str, str] = {}
    for folder in sorted({file.parent for file in place.rglob(EVENTS)}):
        # 0 is all of them; by default thousands are drawn at random.
        events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            scalars.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
        for tag in events.Tags()["tensors"]:
            if tag.endswith("/text_summary"):
                value = events.Tensors(tag)[-1].tensor_proto.string_val
                arguments[tag.removesuffix("/text_summary")] = value[0].decode("utf-8", "replace") if value else ""
    kept = {tag: sorted(dict(_once(tag, values)).items()) for tag, values in scalars.items()}
    return run_of_scalars(str(place), "TensorBoard", kept, arguments, sequence_length)


def _once(tag: str, values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Put what counts last, of what was written twice at a step.

    A run that was resumed has written some steps again: the later ones count. At its end Megatron-LM writes the loss of the
    validation set, and then of the test set, under the name of the validations: the first counts.
    """
    return values[::-1] if tag.removesuffix(" vs samples") in VALIDATION else values


def _log(place: Path, text: str, sequence_length: int | None) -> Run:
    from megatron_nca.rehearsal.training_log import parse_log

    try:
        log = parse_log(text)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{place}: is no log of Megatron-LM's ({error})") from None
    if not log.iterations:
        raise UsageError(f"{place}: has no line of an iteration of Megatron-LM's; it stands in the log of the last rank")
    arguments = dict(_ARGUMENT.findall(text))
    if not arguments:
        raise UsageError(
            f"{place}: has no table of arguments, which rank 0 prints, and so does not tell NCA from text; put rank 0's log "
            "before it, or give the TensorBoard folder"
        )
    reading = reading_of(arguments, sequence_length, str(place))
    samples = {record.iteration: record.consumed_samples for record in log.iterations}
    training = {
        record.iteration: Point(*reading.count(record.consumed_samples), record.loss)
        for record in log.iterations
        if record.loss is not None
    }
    validation = {
        record.iteration: Point(*reading.count(samples[record.iteration]), record.loss)
        for record in reversed(log.validations)
        if record.split != "test" and record.iteration in samples
    }
    return Run(
        str(place), "log of Megatron-LM", _ordered(training), _ordered(validation), reading.plan, facts_of(arguments)
    )  # fmt: skip


def _ordered(points: dict[int, Point]) -> tuple[Point, ...]:
    return tuple(point for _, point in sorted(points.items()))


def _csv(place: Path, text: str, sequence_length: int | None) -> Run:
    scalars: dict[str, list[tuple[int, float]]] = {}
    for number, row in enumerate(csv.DictReader(text.splitlines()), 1):
        step = next((_number(row[name]) for name in STEP_COLUMNS if _number(row.get(name)) is not None), None)
        for name, value in row.items():
            read = _number(value)
            if name is not None and name not in STEP_COLUMNS and read is not None:
                scalars.setdefault(ALIASES.get(name, name), []).append((number if step is None else int(step), read))
    return run_of_scalars(str(place), "CSV", scalars, {}, sequence_length)


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _result(place: Path, text: str) -> Run:
    try:
        told = json.loads(text)
        each, first = int(told["step_tokens"]), int(told["first"])
        training = tuple(
            Point(max(step - first, 0) * each, min(step, first) * each, float(loss))
            for step, loss in enumerate(told["steps"], 1)
        )
        validation = tuple(Point(int(one["tokens"]), first * each, float(one["loss"])) for one in told["validations"])
        plan = str(told["job"].get("first") or "") or None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{place}: is no result of examples/quickstart ({error})") from None
    return Run(str(place), "result of examples/quickstart", training, validation, plan)
