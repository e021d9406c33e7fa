"""Do all ranks make the same tokens? Asked once, before anything is built, since afterwards nobody would notice.

Few samples hardly show an engine that sizes a probe wrongly: one byte decides only where a size lies at an edge of the band. So
sizes of more candidates are hashed, and of those nearest to the edges the verdicts under bands whose edges lie on their sizes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.complexity import probe_bytes, sizes_in_band
from megatron_nca.automaton.cost import probe_cost
from megatron_nca.automaton.source import ENGINES, NCASource
from megatron_nca.data.controls import make_source
from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import EnvironmentMismatchError, NCAError

TRAJECTORIES = 2
TOKENS = 512
CANDIDATES, AT_LEAST, AT_EDGES = 64, 4, 2
"""Candidates that are sized, fewer of a costly process, and those judged at each edge of the band."""
WORK = 50_000_000
"""Nanoseconds, see ``automaton.cost``."""


def fingerprint(entries: Sequence[NCAEntry], seed: int) -> str:
    """Hash the first samples of some entries.

    Args:
        entries: The ``nca:`` entries of a run.
        seed: The run's, for entries without one of their own.

    Returns:
        SHA-256 in hexadecimal; or, where this machine refuses to make the samples, why.
    """
    digest = hashlib.sha256()
    try:
        for entry in entries:
            source = make_source(entry, seed)
            digest.update(source.tokens_batch(range(TRAJECTORIES), TOKENS).astype("<i4").tobytes())
    except NCAError as error:
        return f"{type(error).__name__}: {error}"
    return digest.hexdigest()


def with_complexity(samples: str, entries: Sequence[NCAEntry], seed: int) -> str:
    """Hash a fingerprint with how candidate rules are sized and judged, at the edges of the entries' bands above all.

    Args:
        samples: Fingerprint of the entries. A checkpoint's record holds that alone, so it stays as it is.
        entries: The ``nca:`` entries of a run.
        seed: The run's, for entries without one of their own.

    Returns:
        SHA-256 in hexadecimal; or, where this machine refuses to make the samples, why.
    """
    if " " in samples:
        return samples
    digest = hashlib.sha256(samples.encode())
    try:
        for entry in entries:
            if entry.config.gzip is not None:
                digest.update(_complexity_digest(NCASource(entry.config, seed if entry.seed is None else entry.seed)))
    except NCAError as error:
        return f"{type(error).__name__}: {error}"
    return digest.hexdigest()


def _complexity_digest(source: NCASource) -> bytes:
    """Return sizes and verdicts of a source's first candidates."""
    assert source.config.gzip is not None
    count = max(min(CANDIDATES, WORK // probe_cost(source.config)), AT_LEAST)
    raw = probe_bytes(source.config)
    sizes = np.rint(source.complexities(count) * raw).astype(np.int64)
    rules = np.arange(count, dtype=np.int64)
    verdicts = [source.engine.accepted(rules, np.zeros_like(rules))]
    for edge in sizes_in_band(source.config.gzip, raw):
        for rule in np.argsort(np.abs(sizes - edge), kind="stable")[:AT_EDGES]:
            size = int(sizes[rule])
            bands = ((size, size), (size + 1, size + raw), (0, size - 1))
            verdicts += [_accepted(source, int(rule), band, raw) for band in bands]
    return b"".join([sizes.astype("<i8").tobytes(), *(verdict.astype("<u1").tobytes() for verdict in verdicts)])


def _accepted(source: NCASource, rule: int, sizes: tuple[int, int], raw: int) -> npt.NDArray[np.bool_]:
    """Tell whether a candidate lies in the band that holds the sizes from one to another."""
    band = (max(sizes[0] - 0.5, 0) / raw, (sizes[1] + 0.5) / raw)
    engine = ENGINES[source.engine.name](replace(source.config, gzip=band), source.key)
    return engine.accepted(np.array([rule]), np.array([0]))


def check_ranks_agree(value: str) -> None:
    """Compare the fingerprint with those of all other ranks; a collective call.

    Args:
        value: This rank's fingerprint.

    Raises:
        EnvironmentMismatchError: They differ; the message names the ranks that differ from most.
    """
    # A fingerprint alone needs no torch.
    import torch

    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return
    gathered: list[str] = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, value)
    common, _ = Counter(gathered).most_common(1)[0]
    others = [rank for rank, found in enumerate(gathered) if found != common]
    if others:
        shown = ", ".join(map(str, others[:16])) + (f" and {len(others) - 16} more" if len(others) > 16 else "")
        raise EnvironmentMismatchError(
            f"ranks do not make the same NCA tokens: {len(others)} of {len(gathered)} differ from the rest, rank {shown} "
            f"(rank {others[0]}: {gathered[others[0]]}; the rest: {common}). Their numpy or megatron-nca is another; run "
            "every rank from one image"
        )
