"""Reads a whole run through data loaders, one process a data-parallel rank, and hashes every sample."""

import hashlib
import json
import multiprocessing
import sys
from pathlib import Path

import torch

SAMPLES = 96


class InOrder:
    """Micro-batches of one rank in Megatron's order: rank r has the r-th slice of every world_size * micro_batch samples."""

    def __init__(self, rank, world_size, micro_batch, samples):
        self.rank, self.world_size, self.micro_batch, self.samples = rank, world_size, micro_batch, samples

    def __iter__(self):
        stride = self.world_size * self.micro_batch
        for begin in range(self.rank * self.micro_batch, self.samples, stride):
            yield list(range(begin, begin + self.micro_batch))

    def __len__(self):
        return self.samples // (self.world_size * self.micro_batch)


def digest(batch, row):
    parts = (batch[key][row] for key in ("tokens", "labels", "loss_mask", "position_ids"))
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def hashes(rank, world_size, micro_batch, workers, dataset):
    """Return {position: hash} of what a rank's data loader yields."""
    sampler = InOrder(rank, world_size, micro_batch, SAMPLES)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=sampler, num_workers=workers)
    return {
        position: digest(batch, row)
        for positions, batch in zip(sampler, loader, strict=True)
        for row, position in enumerate(positions)
    }


def read(rank, world_size, micro_batch, workers, text, folder):
    """Be one rank: build the datasets, read its part of the run, leave {position: hash} in ``folder``."""
    import megatron_nca

    megatron_nca.register()
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.num_microbatches_calculator import init_num_microbatches_calculator

    from tests.conftest import Tokenizer

    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size, init_method=f"file://{folder}/store")
    init_num_microbatches_calculator(rank, None, 16, micro_batch, world_size)
    config = GPTDatasetConfig(
        random_seed=1234, sequence_length=128, path_to_cache=f"{folder}/cache", tokenizer=Tokenizer(), split="90,5,5",
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False,
        blend=(["nca:tokens=4K,ramp=4K,floor=0.1", text], None),
    )  # fmt: skip
    train = BlendedMegatronDatasetBuilder(GPTDataset, [SAMPLES, 10, 10], lambda: True, config).build()[0]
    part = json.dumps(hashes(rank, world_size, micro_batch, workers, train))
    (folder / f"rank{rank}.json").write_text(part, encoding="utf-8")
    torch.distributed.destroy_process_group()


def main(runs, text, folder):
    """Read the run in several layouts, each (world_size, micro_batch, workers) in a folder of its own.

    Megatron is imported once; the ranks are forked from here, where no process group and no thread exists yet.
    """
    import megatron.core.datasets.blended_megatron_dataset_builder
    import megatron.core.num_microbatches_calculator  # noqa: F401

    context = multiprocessing.get_context("fork")
    for run in runs:
        place = Path(folder, "-".join(map(str, run)))
        place.mkdir()
        world_size = run[0]
        ranks = [context.Process(target=read, args=(rank, *run, text, place)) for rank in range(world_size)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        if any(rank.exitcode for rank in ranks):
            raise SystemExit(f"{run}: exit codes {[rank.exitcode for rank in ranks]}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), *sys.argv[2:])
