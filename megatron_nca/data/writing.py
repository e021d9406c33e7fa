"""A curriculum written out as the words of a data path, in one form however the user wrote it."""

from __future__ import annotations

from fractions import Fraction

from megatron_nca.data.data_path import Curriculum, Stage
from megatron_nca.data.entry import NCAEntry


def write_entry(entry: NCAEntry) -> str:
    """Write an entry's process and how it becomes samples; not the phase that it may be."""
    settings = [entry.config.to_uri()]
    defaults = NCAEntry(text="", config=entry.config)
    for key in ("rules", "trajectory", "loss", "control", "seed"):
        if getattr(entry, key) != getattr(defaults, key):
            settings.append(f"{key}={getattr(entry, key)}")
    if entry.vocab_offset is not None:
        settings.append(f"vocab=offset:{entry.vocab_offset}")
    return ",".join(settings)


def write_words(curriculum: Curriculum) -> tuple[str, ...]:
    """Write a curriculum's words; ``read_blend`` reads them back."""
    return tuple(word for stage in curriculum.stages for word in _write_stage(stage))


def _write_stage(stage: Stage) -> list[str]:
    parts = []
    if stage.tokens is not None:
        parts.append(f"tokens={stage.tokens}")
    if stage.ramp:
        parts.append(f"ramp={stage.ramp}")
    if stage.floor:
        parts.append(f"floor={decimal(stage.floor)}")
    if stage.batch is not None:
        parts.append(f"batch={stage.batch}")
    words = ["phase:" + ",".join(parts)]
    for entry, weight in stage.nca:
        words += [decimal(weight), write_entry(entry)]
    weights = stage.weights or (None,) * len(stage.texts)
    for prefix, text_weight in zip(stage.texts, weights, strict=True):
        words += [prefix] if text_weight is None and not stage.nca else [repr(float(text_weight or 1)), prefix]
    return words


def decimal(share: Fraction) -> str:
    """Write a decimal fraction exactly."""
    digits, power = share, 0
    while digits.denominator != 1:
        digits, power = digits * 10, power + 1
    text = str(digits.numerator).rjust(power + 1, "0")
    return f"{text[:-power]}.{text[-power:]}" if power else text
