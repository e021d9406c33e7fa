"""How far a step is in the curriculum: the scalars that every stack writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from megatron_nca.data.curriculum import Plan
from megatron_nca.interfaces.core import SummaryWriter, Wandb

MOST_SOURCES = 64
"""Sources of a run that has a scalar for each; more of them would fill a dashboard and a step."""


class Progress(Mapping[str, float]):
    """The scalars of the step that reads ``batch`` samples after ``consumed_samples``, computed when they are read.

    ``nca/phase`` (0 for the first, the number of phases for the final blend), ``nca/share`` of the step's samples,
    ``nca/tokens`` and ``text/tokens`` read so far; where texts are sources of their own ``tokens/NAME`` of every source.
    Empty without a plan.
    """

    def __init__(self, plan: Plan | None, consumed_samples: int = 0, batch: int = 1) -> None:
        self._plan = plan
        self._consumed_samples = consumed_samples
        self._batch = batch
        self._values: dict[str, float] | None = None

    def _read(self) -> dict[str, float]:
        if self._values is None:
            self._values = {} if self._plan is None else self._compute(self._plan)
        return self._values

    def _compute(self, plan: Plan) -> dict[str, float]:
        begin, end = self._consumed_samples, self._consumed_samples + self._batch
        before, after = (plan.schedule.counts(samples) for samples in (begin, end))
        nca, text = plan.nca_and_text(after)
        return {
            "nca/phase": sum(begin >= phase.end for phase in plan.phases),
            "nca/share": (nca - plan.nca_and_text(before)[0]) / self._batch,
            "nca/tokens": nca * plan.sequence_length,
            "text/tokens": text * plan.sequence_length,
            **_of_each(plan, after),
        }

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _of_each(plan: Plan, counts: Sequence[int]) -> dict[str, float]:
    """Return the tokens of each source, named by the last part of its prefix where that tells it from the others."""
    if plan.text_is_one or len(plan.sources) > MOST_SOURCES:
        return {}
    names = [source.name for source in plan.sources]
    short = [name.rpartition("/")[2] if not source.is_nca else name for name, source in zip(names, plan.sources, strict=True)]
    names = short if len(set(short)) == len(short) else [f"{number} {name}" for number, name in enumerate(short, 1)]
    return {f"tokens/{name}": count * plan.sequence_length for name, count in zip(names, counts, strict=True)}


def ledger(plan: Plan, consumed_samples: int) -> list[str]:
    """Tell what each source has given and will give, a line each.

    Args:
        plan: The plan of the whole run.
        consumed_samples: Samples of all steps so far.
    """
    given, total = (plan.schedule.counts(samples) for samples in (consumed_samples, max(plan.samples, consumed_samples)))
    length = plan.sequence_length
    return [
        f"{source.name}: {before:,} samples ({before * length:,} tokens) so far, {after - before:,} "
        f"({(after - before) * length:,} tokens) to come"
        for source, before, after in zip(plan.sources, given, total, strict=True)
    ]


def write_scalars(tensorboard: SummaryWriter | None, wandb: Wandb | None, scalars: Mapping[str, float], iteration: int) -> None:
    """Write to a stack's own writers, where it has them: Megatron gives them to one rank.

    Args:
        tensorboard: A ``SummaryWriter``, or None.
        wandb: Weights & Biases' module, or None.
        scalars: Values by name.
        iteration: Steps so far.
    """
    if tensorboard is not None:
        for name, value in scalars.items():
            tensorboard.add_scalar(name, value, iteration)
    if wandb and scalars:
        wandb.log(dict(scalars), iteration)
