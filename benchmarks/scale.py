"""Start-up, memory and files of a curriculum against its length, beside Megatron's own dataset of a growing text.

Run as ``python -m benchmarks.scale [--quick]``. Every row is a process of its own, which builds the train, validation and test
datasets once and reads one sample of each source; figures are beyond what the process had after importing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEQUENCE = 4096
TEXT_TOKENS = 4_000_000
ENTRIES = ("1M", "1B", "1T")
TEXT_SAMPLES = (10**4, 10**6, 10**7)
QUICK_TEXT_SAMPLES = (10**4, 10**5)


class Tokenizer:
    """As much of a tokenizer as Megatron's datasets use."""

    vocab_size = 50_257
    eod = 50_256
    pad = -1
    unique_identifiers = {"class": "Tokenizer"}  # noqa: RUF012


def write_text(prefix: str, tokens: int = TEXT_TOKENS) -> None:
    """Write a text of so many random tokens as Megatron's .bin and .idx."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    generator = np.random.default_rng(0)
    for _ in range(tokens // 1000):
        builder.add_item(torch.from_numpy(generator.integers(0, 50_256, 1000)))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")


def measure(blend: list[str], samples: int, cache: str) -> dict[str, float]:
    """Build the datasets of a run in this process.

    Args:
        blend: Data path.
        samples: Training samples.
        cache: Folder for Megatron's index files.

    Returns:
        ``seconds`` to build, ``megabytes`` of memory beyond imports and ``files`` in megabytes.
    """
    import megatron_nca

    megatron_nca.register()
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    from megatron_nca import NCAConfig, NCASource

    # The engine's compilation is a start-up cost of its own (benchmarks.engine), the same for every length.
    NCASource(NCAConfig(gzip=(0.5, 1.0))).tokens(0, 100)
    before = memory()
    begin = time.perf_counter()
    config = GPTDatasetConfig(
        random_seed=1, sequence_length=SEQUENCE, path_to_cache=cache, tokenizer=Tokenizer(), blend=(blend, None),
        split="99,1,0", reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
        create_attention_mask=False,
    )  # fmt: skip
    train = BlendedMegatronDatasetBuilder(GPTDataset, [samples, 100, 0], lambda: True, config).build()[0]
    seconds = time.perf_counter() - begin
    for position in (0, samples - 1):
        _ = train[position]
    files = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
    return {"seconds": seconds, "megabytes": memory() - before, "files": files / 1e6}


def memory() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_process(blend: list[str], samples: int) -> dict[str, float]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:
        arguments = [sys.executable, "-m", "benchmarks.scale", "--measure", json.dumps([blend, samples, cache])]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        output = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, env=environment).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def rows(text: str, quick: bool) -> list[tuple[str, str, dict[str, float]]]:
    """Measure every row: (data path, tokens, figures)."""
    after = 1000
    measured = []
    for entry in ENTRIES:
        phase = {"1M": 10**6, "1B": 10**9, "1T": 10**12}[entry] // SEQUENCE
        figures = in_process([f"nca:tokens={entry}", text], phase + after)
        measured.append((f"nca:tokens={entry} TEXT", f"{(phase + after) * SEQUENCE:.1e}", figures))
    for samples in QUICK_TEXT_SAMPLES if quick else TEXT_SAMPLES:
        measured.append(("TEXT", f"{samples * SEQUENCE:.1e}", in_process([text], samples)))
    return measured


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the largest text")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*json.loads(arguments.measure))))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = f"{folder}/text"
        write_text(text)
        measured = rows(text, arguments.quick)
    first = measured[0][2]
    print("| data path | training tokens | build, s | ratio | memory, MB | above the first row, MB | index files, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for path, tokens, figures in measured:
        seconds, megabytes, files = figures["seconds"], figures["megabytes"], figures["files"]
        print(
            f"| `{path}` | {tokens} | {seconds:.2f} | {seconds / first['seconds']:.1f} | {megabytes:.1f} | "
            f"{megabytes - first['megabytes']:.1f} | {files:.1f} |"
        )


if __name__ == "__main__":
    main()
