"""What a start costs each of many ranks: the datasets of an NCA phase and a text, built by the builder on gloo.

Run as ``python -m benchmarks.ranks [--ranks 32]``. Ranks are processes forked after the imports. Figures are those of building
the train, validation and test datasets and reading the first sample, on the rank that has most of each. Kernels are compiled
where ``NUMBA_CACHE_DIR`` names an empty folder.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from megatron.core.datasets import blended_megatron_dataset_builder, gpt_dataset
from numba.core import event

import megatron_nca
from benchmarks.scale import SEQUENCE, Tokenizer, write_text

COLLECTIVES = ("all_reduce", "all_gather", "all_gather_object", "broadcast", "broadcast_object_list", "barrier")
SAMPLES = 10_000
PYTHONS = "of Python"
PHASE = "nca:tokens=10M,gzip=0.5-1.0"


class Counted:
    """What this process does from now on: collectives, opened files, compiled kernels, seconds, memory."""

    def __init__(self) -> None:
        self.collectives: Counter[str] = Counter()
        self.files: Counter[str] = Counter()
        self._depth = 0
        self._kernels = event.RecordingListener()
        for name in COLLECTIVES:
            setattr(torch.distributed, name, self._counting(name, getattr(torch.distributed, name)))
        sys.addaudithook(self._see)
        event.register("numba:compile", self._kernels)
        self._begin = time.perf_counter(), time.process_time(), _resident()

    def result(self) -> dict[str, Any]:
        """Return the counts."""
        begin, cpu, resident = self._begin
        ended = [record for _, record in self._kernels.buffer if record.is_end]
        return {
            "collectives": dict(self.collectives),
            "files": dict(self.files),
            "compiled": len(ended),
            "seconds": time.perf_counter() - begin,
            "cpu": time.process_time() - cpu,
            "megabytes": (_resident() - resident) / 1e6,
        }

    def _counting(self, name: str, collective: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(collective)
        def call(*args: Any, **keywords: Any) -> Any:
            self.collectives[name] += self._depth == 0
            self._depth += 1
            try:
                return collective(*args, **keywords)
            finally:
                self._depth -= 1

        return call

    def _see(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "open" and isinstance(args[0], str):
            self.files[_kind(args[0])] += 1


def _kind(path: str) -> str:
    if "/cache/" in path:
        return "indices of the text"
    kinds = {".nbi": "of kernels", ".nbc": "of kernels", ".idx": "of the text", ".bin": "of the text"}
    return kinds.get(Path(path).suffix, PYTHONS)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _build(rank: int, ranks: int, folder: str, words: list[str], results: Any) -> None:
    """Be one rank."""
    megatron_nca.register().restore(None, 0)
    store = f"file://{folder}/store-{len(words)}"
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks, init_method=store)
    torch.distributed.barrier()
    counted = Counted()
    config = gpt_dataset.GPTDatasetConfig(
        random_seed=1, sequence_length=SEQUENCE, path_to_cache=f"{folder}/cache", tokenizer=Tokenizer(), blend=(words, None),
        split="99,1,0", reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
        create_attention_mask=False,
    )  # fmt: skip
    builder = blended_megatron_dataset_builder.BlendedMegatronDatasetBuilder
    _ = builder(gpt_dataset.GPTDataset, [SAMPLES, 100, 0], lambda: True, config).build()[0][0]
    results.put(counted.result())
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def measure(ranks: int, folder: str, words: list[str]) -> list[dict[str, Any]]:
    """Start ranks; return what each has counted."""
    forked = multiprocessing.get_context("fork")
    results = forked.Queue()
    processes = [
        forked.Process(target=_build, args=(rank, ranks, folder, words, results), daemon=True) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    counts = [results.get(timeout=580) for _ in processes]
    for process in processes:
        process.join()
    return counts


def row(name: str, counts: list[dict[str, Any]]) -> str:
    """Return a row of the table: what the rank with the most has."""
    calls = max((found["collectives"] for found in counts), key=lambda found: sum(found.values()))
    files = Counter[str]()
    for found in counts:
        for kind, number in found["files"].items():
            files[kind] = max(files[kind], number)
    shown = ", ".join(f"{number} {kind}" for kind, number in sorted(files.items()) if kind != PYTHONS)
    worst = {key: max(found[key] for found in counts) for key in ("compiled", "megabytes", "cpu", "seconds")}
    return (
        f"| {name} | {', '.join(f'{number} {call}' for call, number in sorted(calls.items()))} | {shown or 0} | "
        f"{worst['compiled']} | {worst['megabytes']:.0f} | {worst['cpu']:.2f} | {worst['seconds']:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=32, help="how many")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = f"{folder}/text"
        write_text(text)
        print(
            "| data path | collectives | files opened | kernels compiled | MB | CPU s | s |\n|---|---|---|---:|---:|---:|---:|"
        )
        for name, words in (("`TEXT`", [text]), (f"`{PHASE} TEXT`", [PHASE, text])):
            print(row(name, measure(arguments.ranks, folder, words)), flush=True)


if __name__ == "__main__":
    main()
