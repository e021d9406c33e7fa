"""The order in which samples are read: the dataset's own, from the consumed samples on."""

from __future__ import annotations

from collections.abc import Iterator


class InOrderBatches:
    """Micro-batches of one data-parallel rank, in the order of the dataset, from the consumed samples on.

    The ranks share every stretch of `ranks * micro_batch` samples evenly, as Megatron-LM's sampler has it. So a global batch
    holds the same samples however many ranks there are.

    Args:
        consumed: Samples that were trained on before.
        samples: Samples of the dataset.
        micro_batch: Samples of a micro-batch.
        rank: Data-parallel rank.
        ranks: Data-parallel ranks.
    """

    def __init__(self, consumed: int, samples: int, micro_batch: int, rank: int, ranks: int) -> None:
        self.consumed = consumed
        self.samples = samples
        self.micro_batch = micro_batch
        self.rank = rank
        self.ranks = ranks

    def __len__(self) -> int:
        return (self.samples - self.consumed) // (self.micro_batch * self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(len(self)):
            begin = self.consumed + (batch * self.ranks + self.rank) * self.micro_batch
            yield list(range(begin, begin + self.micro_batch))
