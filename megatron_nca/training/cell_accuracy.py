"""How many cells of the next frame a model predicts, by the number of frames that it has seen of the trajectory.

A model learns a rule in its context, so its accuracy rises from frame to frame. The prediction is the most probable token
under the true tokens before it; its cells are those of its patch, and a token that is no patch has none right.
"""

from __future__ import annotations

from typing import Any

import torch

from megatron_nca.automaton.config import NCAConfig

NO_CELL = -1


def cells_of_ids(config: NCAConfig, ids: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Tabulate the cells of every id of the vocabulary.

    Args:
        config: The process.
        ids: int64 (config.vocab_size,), the vocabulary's id of each of the process's tokens.
        vocab_size: Rows of the model's embedding.

    Returns:
        int16 (vocab_size, patch * patch), -1 for an id that is no patch.
    """
    places = config.colors ** torch.arange(config.patch**2)
    cells = torch.full((vocab_size, config.patch**2), NO_CELL, dtype=torch.int16)
    patches = torch.arange(config.patch_tokens)
    cells[ids[patches]] = (patches[:, None] // places % config.colors).to(torch.int16)
    return cells


def count_cells(
    cells: torch.Tensor, predicted: torch.Tensor, labels: torch.Tensor, frames_seen: torch.Tensor, frames: int
) -> torch.Tensor:
    """Count the cells that were predicted.

    Args:
        cells: Table of cells, as ``cells_of_ids`` makes them.
        predicted: int64, any shape, the most probable ids.
        labels: int64, the same shape, the true ids.
        frames_seen: int64, the same shape, -1 for a label that is no patch.
        frames: One more than the greatest of them.

    Returns:
        float64 (2, frames): cells predicted and cells there were, by the number of frames seen.
    """
    is_patch = frames_seen >= 0
    right = (cells[predicted] == cells[labels]).sum(dim=-1) * is_patch
    there = is_patch * cells.shape[1]
    place = frames_seen.clamp(min=0).flatten()
    counts = torch.zeros(2, frames, dtype=torch.float64, device=cells.device)
    for row, values in zip(counts, (right, there), strict=True):
        row.index_add_(0, place, values.flatten().to(torch.float64))
    return counts


def most_probable(logits: torch.Tensor, first_id: int, group: Any = None) -> torch.Tensor:
    """Find the most probable ids where the vocabulary is split over a tensor-parallel group.

    Args:
        logits: (..., ids of this rank).
        first_id: This rank's first id.
        group: The ranks that hold the other ids, or None for all ids here.

    Returns:
        int64 (...), the same on every rank; the lowest id of several that are equally probable.
    """
    value, place = logits.float().max(dim=-1)
    ids = place + first_id
    if group is None or torch.distributed.get_world_size(group) == 1:
        return ids
    greatest = value.clone()
    torch.distributed.all_reduce(greatest, torch.distributed.ReduceOp.MAX, group=group)
    ids = torch.where(value == greatest, ids, torch.iinfo(torch.int64).max)
    torch.distributed.all_reduce(ids, torch.distributed.ReduceOp.MIN, group=group)
    return ids
