"""Do all ranks make the same tokens? Asked once, before anything is built, since afterwards nobody would notice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from megatron_nca.data.controls import make_source
from megatron_nca.data.entry import NCAEntry
from megatron_nca.errors import EnvironmentMismatchError, NCAError

TRAJECTORIES = 2
TOKENS = 512


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


def check_ranks_agree(own: str) -> None:
    """Compare the fingerprint with those of all other ranks; a collective call.

    Args:
        own: This rank's fingerprint.

    Raises:
        EnvironmentMismatchError: They differ; the message names the ranks that differ from most.
    """
    # A fingerprint alone needs no torch.
    import torch

    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return
    gathered: list[str] = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, own)
    common, _ = Counter(gathered).most_common(1)[0]
    others = [rank for rank, found in enumerate(gathered) if found != common]
    if others:
        shown = ", ".join(map(str, others[:16])) + (f" and {len(others) - 16} more" if len(others) > 16 else "")
        raise EnvironmentMismatchError(
            f"ranks do not make the same NCA tokens: {len(others)} of {len(gathered)} differ from the rest, rank {shown} "
            f"(rank {others[0]}: {gathered[others[0]]}; the rest: {common}). Their numpy or megatron-nca is another; run "
            "every rank from one image"
        )
