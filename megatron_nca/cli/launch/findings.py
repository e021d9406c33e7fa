"""What is wrong, or perhaps not meant, in a plan that a launch would take."""

from __future__ import annotations

from collections.abc import Iterator

from megatron_nca.automaton.source import NCASource
from megatron_nca.cli.launch.speed import tokens_a_core
from megatron_nca.data.curriculum import Plan
from megatron_nca.data.entry import NCAEntry, is_nca
from megatron_nca.data.layout import SampleLayout

FEW_STEPS = 500
"""Fewer optimizer steps of NCA than this are warned of; the paper had 5,000, of 32 sequences of 1,024 tokens."""
FEW_RULES, RULES_LOOKED_AT = 0.01, 4_000
SMALL_SHARE = 1e-3


def problems(plan: Plan) -> Iterator[str]:
    """Yield what makes a plan a bad one: it would not train as its entries say."""
    if plan.switch is not None and plan.switch >= plan.samples:
        yield (
            f"the run ends after {plan.samples:,} samples, before the switch at {plan.switch:,}: nothing but NCA is trained "
            "on; lengthen the run or shorten the phases"
        )
    elif not plan.curriculum.entries and len(plan.curriculum.stages) == 1:
        yield "no nca: entry and no phase: in the data path; add one, as in nca:tokens=164M"


def warnings(plan: Plan, vocabulary: str) -> Iterator[str]:
    """Yield what a launch takes and its user may not have meant.

    Args:
        plan: The plan.
        vocabulary: Source of the vocabulary's size, for messages.
    """
    steps = plan.batches.batches_until(min(plan.switch or 0, plan.samples))
    if 0 < steps < FEW_STEPS:
        yield (
            f"NCA ends after {steps:,} optimizer steps (the paper: 5,000, in batches of 32 x 1,024 tokens); fewer than "
            f"{FEW_STEPS} teach little: give the phase a batch= of its own, as in batch=32"
        )
    for entry in plan.curriculum.entries:
        yield from _entry_warnings(entry, plan.sequence_length)
    texts = plan.curriculum.last
    total = sum(texts.text_weights)
    for prefix, weight in zip(texts.texts, texts.text_weights, strict=True):
        if weight < SMALL_SHARE * total:
            yield f"{prefix}: has a share of {float(weight / total):.2g} of its blend"
    for place, count in enumerate(plan.schedule.counts(plan.samples)):
        name = plan.source_name(place)
        if count < SMALL_SHARE * plan.samples and not is_nca(name):
            yield f"{name}: has a share of {count / plan.samples:.2g} of the run, {count:,} samples"
    if plan.curriculum.entries and vocabulary.startswith("assumed"):
        yield f"the vocabulary is {vocabulary}"


def _entry_warnings(entry: NCAEntry, length: int) -> Iterator[str]:
    if entry.rare:
        accepted = NCASource(entry.config).acceptance(RULES_LOOKED_AT)
        if accepted < FEW_RULES:
            rate = tokens_a_core(entry, length)
            yield f"{entry.text}: {accepted:.2%} of random rules lie in the band, so a core makes {rate:,.0f} tokens/s"
    layout = SampleLayout(length, False, entry.trajectory)
    rest = length % entry.trajectory if layout.ends_with_eod else 0
    if 0 < rest < 2 * entry.config.frame_length:
        yield (
            f"{entry.text}: a sequence of {length:,} tokens ends with {rest:,} of a trajectory of {entry.trajectory:,}, less "
            f"than two frames of {entry.config.frame_length}; give trajectory= a divisor of {length:,}"
        )
