"""A sample through Megatron: NCA trajectories beside a memory-mapped text.

Run as ``python -m benchmarks.dataset [--quick]``. Samples read in this process count CPU time, the datasets in turns and the
fastest round of each; a DataLoader also counts wall time, which a busy machine spoils.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import Split
from torch.utils.data import DataLoader

from benchmarks.scale import Tokenizer, write_text
from megatron_nca.data.builder import make_dataset
from megatron_nca.data.domain import read_entry

LENGTHS = (1024, 4096, 8192)
WORKERS = (1, 2)
ENTRIES = {"nca:": "0.5-1.0", "nca:gzip=none": "unfiltered", "nca:domain=code": "0.3-0.4"}
TEXT = "text"
ROUND_TOKENS = 400_000
LOADER_TOKENS = 2_000_000
MICRO_BATCH = 4
SAMPLES = 10**6
MODELS = {"1.6B": 1.6e9, "8B": 8e9}
GPU_FLOPS = 400e12


def dataset_config(sequence_length: int, cache: str, text: str) -> GPTDatasetConfig:
    """Make Megatron's config as pretrain_gpt.py does by default, but for the attention mask, which kernels make themselves."""
    return GPTDatasetConfig(
        random_seed=1, sequence_length=sequence_length, path_to_cache=cache, tokenizer=Tokenizer(), blend=([text], None),
        split="100,0,0", reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
        create_attention_mask=False,
    )  # fmt: skip


def datasets(sequence_length: int, folder: str) -> dict[str, Any]:
    """Build the text and every entry's dataset."""
    config = dataset_config(sequence_length, f"{folder}/cache", f"{folder}/{TEXT}")
    text = BlendedMegatronDatasetBuilder(GPTDataset, [10_000, 0, 0], lambda: True, config).build()[0]
    entries = {entry: make_dataset(read_entry(entry), 0, SAMPLES, Split.train, config) for entry in ENTRIES}
    return {TEXT: text, **entries}


def seconds_a_sample(built: dict[str, Any], sequence_length: int, rounds: int) -> dict[str, float]:
    """Measure CPU seconds a sample of each dataset, in turns."""
    samples = ROUND_TOKENS // sequence_length
    taken: dict[str, list[float]] = {name: [] for name in built}
    for number in range(rounds + 1):
        for name, dataset in built.items():
            begin = time.process_time()
            for index in range(number * samples, (number + 1) * samples):
                _ = dataset[index % len(dataset)]
            taken[name].append((time.process_time() - begin) / samples)
    # The first round pays for pages of the text and for what the engine makes once.
    return {name: min(seconds[1:]) for name, seconds in taken.items()}


def through_loader(dataset: Any, sequence_length: int, workers: int) -> tuple[float, float]:
    """Read batches through a DataLoader.

    Returns:
        Tokens a second of wall time, and a second of the workers' CPU time.
    """
    indices = range(min(LOADER_TOKENS // sequence_length, len(dataset)))
    loader = DataLoader(dataset, batch_size=MICRO_BATCH, sampler=indices, num_workers=workers, multiprocessing_context="fork")
    before = children_seconds()
    iterator = iter(loader)
    next(iterator)
    begin = time.perf_counter()
    batches = sum(1 for _ in iterator)
    wall = time.perf_counter() - begin
    # Workers' CPU time is known once they have ended.
    del iterator
    used = children_seconds() - before
    return batches * MICRO_BATCH * sequence_length / wall, len(indices) * sequence_length / used


def children_seconds() -> float:
    """CPU seconds of the processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def gpus_fed(tokens_a_second: float, parameters: float) -> float:
    """GPUs that train a model of so many parameters on so many tokens a second, at 6 FLOPs a token and parameter."""
    return tokens_a_second * 6 * parameters / GPU_FLOPS


def sample_table(built: dict[int, dict[str, Any]], rounds: int) -> Iterator[str]:
    """Lines of the table of samples read in one process."""
    models = " | ".join(f"GPUs fed, {model}" for model in MODELS)
    yield f"| sequence length | data path | band | µs a sample | over text | tokens/s a core | {models} |"
    yield "|---:|---|---|---:|---:|---:|" + "---:|" * len(MODELS)
    for length, named in built.items():
        seconds = seconds_a_sample(named, length, rounds)
        for name, taken in seconds.items():
            rate = length / taken
            fed = " | ".join(f"{gpus_fed(rate, parameters):,.0f}" for parameters in MODELS.values())
            ratio = taken / seconds[TEXT]
            yield f"| {length} | `{name}` | {ENTRIES.get(name, '')} | {taken * 1e6:,.0f} | {ratio:.1f} | {rate:,.0f} | {fed} |"


def loader_table(built: dict[int, dict[str, Any]]) -> Iterator[str]:
    """Lines of the table of samples read by data-loader workers."""
    yield "| sequence length | data path | workers | tokens/s, wall | tokens/s of a worker's CPU |"
    yield "|---:|---|---:|---:|---:|"
    for length, named in built.items():
        for name in (TEXT, "nca:"):
            for workers in WORKERS:
                wall, cpu = through_loader(named[name], length, workers)
                yield f"| {length} | `{name}` | {workers} | {wall:,.0f} | {cpu:,.0f} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; a DataLoader of one length alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_text(f"{folder}/{TEXT}")
        built = {length: datasets(length, folder) for length in LENGTHS}
        loaded = dict([next(iter(built.items()))]) if arguments.quick else built
        for table in (sample_table(built, 2 if arguments.quick else 7), loader_table(loaded)):
            for line in table:
                print(line, flush=True)
            print()


if __name__ == "__main__":
    main()
