"""What is compared: each arm is the quickstart's run with something changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ENTRY = "nca:tokens=1M,grid=4,colors=4,burn_in=200,gzip=0.3-0.8"
SEEDS = (1, 2, 3, 4, 5)
OTHER = "{other}"
"""Stands for the prefix of another text."""
RATES = {"half": {"lr": 2e-3, "embedding_lr": 1.5e-2}, "double": {"lr": 8e-3, "embedding_lr": 6e-2}}
SHORT = {"text_tokens": 750_000, "validate_every": 125_000}


@dataclass(frozen=True)
class Arm:
    """One kind of run.

    Attributes:
        name: The arm's name.
        says: What it is, for the table.
        changes: Fields of the quickstart's Job that differ.
        against: Name of the arm that it is compared with; none for a baseline.
        seeds: Which.
    """

    name: str
    says: str
    changes: dict[str, Any] = field(default_factory=dict)
    against: str | None = None
    seeds: tuple[int, ...] = SEEDS


def arms() -> Iterator[Arm]:
    """Yield all arms, those that answer most first."""
    yield Arm("scratch", "4M text")
    yield Arm("nca", "1M NCA, then 4M text", {"first": ENTRY}, "scratch")
    yield Arm("shuffled", "1M NCA shuffled in each trajectory", {"first": f"{ENTRY},control=shuffled"}, "scratch")
    yield Arm("fast-nca", "1M NCA at twice its rate", {"first": ENTRY, "nca_lr": 4e-3}, "scratch")
    low = {"first": ENTRY, "nca_embedding_lr": 1e-3}
    yield Arm("low-nca", "1M NCA with its embeddings at 1e-3", low, "scratch", SEEDS[:2])
    yield Arm("short-scratch", "0.75M text, a rate planned for that", SHORT)
    yield Arm("short-nca", "1M NCA, then the same", {"first": ENTRY, **SHORT}, "short-scratch")
    yield Arm("dyck", "1M Dyck-64", {"first": f"{ENTRY},control=dyck"}, "scratch")
    yield Arm("other", "1M of other text, then new embeddings", {"first": f"phase:tokens=1M {OTHER} phase:"}, "scratch")
    yield Arm("same-total", "5M text", {"text_tokens": 5_000_000}, "scratch")
    for name, rates in RATES.items():
        yield Arm(f"scratch-{name}", f"4M text, {name} the rates", rates, None, SEEDS[:2])
        yield Arm(
            f"nca-{name}", f"1M NCA, then 4M text, {name} the rates", {"first": ENTRY, **rates}, f"scratch-{name}", SEEDS[:2]
        )
