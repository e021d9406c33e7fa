"""NCADataset: a GPTDataset whose documents are trajectories, generated when they are read.

Megatron's GPTDataset turns documents into samples through three index arrays. Here the arrays compute their entries, and the
low-level dataset computes its documents; masks, position ids, padding and packing stay Megatron's own, in every version, and
nothing is stored or written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import Split

from megatron_nca.automaton.source import NCASource
from megatron_nca.data.entry import NCAEntry
from megatron_nca.data.layout import SampleLayout


class TrajectoryDocuments:
    """The low-level dataset: document number -> token ids of one trajectory.

    Args:
        source: Makes the trajectories.
        ids: The tokenizer's id of each of the process's tokens, int64 (config.vocab_size,).
        layout: Tells how long a document is.
        eod: The tokenizer's end-of-document id, which ends a packed document; None where none is packed.
    """

    def __init__(self, source: NCASource, ids: npt.NDArray[np.int64], layout: SampleLayout, eod: int | None) -> None:
        self.source = source
        self.ids = ids
        self.layout = layout
        self.eod = eod

    def get(self, idx: int, offset: int = 0, length: int | None = None) -> npt.NDArray[np.int64]:
        """Return a part of a document.

        Args:
            idx: Document number, which is the trajectory's.
            offset: First token.
            length: Number of tokens, or None for all that follow.

        Returns:
            int64 (length,).
        """
        end = self.layout.document_length if length is None else min(offset + int(length), self.layout.document_length)
        last = self.layout.document_length - self.layout.ends_with_eod
        document = self.ids[self.source.tokens(int(idx), min(end, last))]
        if end > last and self.eod is not None:
            document = np.append(document, self.eod)
        return document[offset:]


class NCADataset(GPTDataset):
    """NCA trajectories as Megatron samples.

    Args:
        documents: The trajectories.
        entry: The entry they come from.
        num_samples: Length of the dataset.
        index_split: Split, for bookkeeping.
        config: Megatron's dataset config.
    """

    def __init__(
        self,
        documents: TrajectoryDocuments,
        entry: NCAEntry,
        num_samples: int,
        index_split: Split,
        config: GPTDatasetConfig,
    ) -> None:
        self.entry = entry
        self.layout = documents.layout
        super().__init__(documents, entry.text, np.empty(0, dtype=np.int32), num_samples, index_split, config)
        self.trained_labels = torch.from_numpy(self.layout.trained_labels(entry.config, entry.loss))

    def _build_document_sample_shuffle_indices(self) -> tuple[Any, Any, Any]:
        return _DocumentIndex(), _SampleIndex(self.layout), _ShuffleIndex()

    def __len__(self) -> int:
        return int(self.num_samples)

    def __getitem__(self, idx: int | None) -> dict[str, torch.Tensor]:
        """Return a sample as GPTDataset does, labels that the entry leaves out of the loss masked."""
        sample: dict[str, torch.Tensor] = super().__getitem__(idx)
        sample["loss_mask"] = sample["loss_mask"] * self.trained_labels
        return sample


class _DocumentIndex:
    """Documents in their natural order."""

    def __getitem__(self, document: int) -> int:
        return int(document)


class _ShuffleIndex:
    """Sample i begins at entry 2 i of the sample index and ends at the next."""

    def __getitem__(self, idx: int) -> int:
        return 2 * int(idx)


class _SampleIndex:
    """(document, offset) of the first token and of the last label of every sample, in turn."""

    def __init__(self, layout: SampleLayout) -> None:
        self.layout = layout

    def __getitem__(self, idx: int) -> tuple[int, int]:
        sample, is_end = divmod(int(idx), 2)
        return self.layout.end(sample) if is_end else self.layout.begin(sample)
