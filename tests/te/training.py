"""The training of `megatron_nca.rehearsal.fp8_training` on a cycle that it learns in a few steps."""

import torch

from megatron_nca.rehearsal import fp8_training

SEQUENCE, BATCH, VOCABULARY = 32, 4, 64


class Training(fp8_training.Training):
    """`stride` may be changed as the data change from NCA to text."""

    def __init__(self, recipe="delayed", **settings):
        self.stride = 1
        super().__init__(self.cycle, VOCABULARY, SEQUENCE, recipe, **settings)

    def cycle(self, step):
        generator = torch.Generator().manual_seed(step)
        start = torch.randint(0, VOCABULARY, (BATCH, 1), generator=generator)
        row = (start + self.stride * torch.arange(SEQUENCE + 1)) % VOCABULARY
        return row[:, :-1], row[:, 1:]
