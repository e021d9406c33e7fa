"""Start-up time and memory against the number of sources and the planned length, beside Megatron's own blend.

Run as ``python -m benchmarks.sources [--quick]``. Every row is a process of its own. The first table builds the training
data: a data path of phases, in which every text stands twice, through the plugin; the same texts in one blend, through Megatron
alone. Both read every text as Megatron's GPTDataset, whose index grows with the samples asked of it. The second table lays out
the schedule alone, which is all that the plugin adds, up to 1T tokens; it needs no Megatron-Core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.fuzz import peak_memory
from benchmarks.scale import SEQUENCE, Tokenizer, write_text

SOURCES = {1: 1, 100: 10, 10_000: 100}
"""Sources -> phases that end, before the last one."""
TEXT_TOKENS = 20_000
LENGTHS = {"1M": 10**6, "1B": 10**9, "10B": 10**10, "1T": 10**12}
BUILT = ("1M", "1B", "10B")
"""Lengths of the first table. Megatron's index of 1T tokens would be gigabytes on the disk and more in memory, whoever asks."""
LOOK_UPS = 2_000
PATIENCE = 90
"""Seconds after which a build is given up."""
FORK = multiprocessing.get_context("fork")
FILES = 2
"""Files of a text that stay open."""


def data_path(prefixes: Sequence[str], tokens: int) -> list[str]:
    """Return phases of equal length over texts, of which every one stands in two phases that follow each other.

    Args:
        prefixes: Prefixes of the texts.
        tokens: Length of the whole run.
    """
    phases = SOURCES[len(prefixes)]
    share = -(-len(prefixes) // phases)
    words = []
    for phase in range(phases + 1):
        words.append(f"phase:tokens={tokens // (phases + 1)}" if phase < phases else "phase:")
        for number in range((phase - 1) * share, (phase + 1) * share):
            if 0 <= number < len(prefixes):
                words += [f"{1 + number % 7}", prefixes[number]]
    return words


def blend(prefixes: Sequence[str]) -> list[str]:
    """Return Megatron's own data path of the same texts."""
    return [word for number, prefix in enumerate(prefixes) for word in (f"{1 + number % 7}", prefix)]


def measure_build(words: list[str], tokens: int, cache: str, ours: bool) -> dict[str, float]:
    """Build the training data in this process, and again from the index files that are there then.

    Args:
        words: Data path.
        tokens: Length of the run.
        cache: Folder for Megatron's index files.
        ours: Whether the plugin is there.

    Returns:
        ``seconds`` and ``again`` to build, ``megabytes`` of memory beyond imports, ``files`` in megabytes.
    """
    import torch

    torch.distributed.init_process_group("gloo", init_method=f"file://{cache}/meeting", rank=0, world_size=1)
    if ours:
        import megatron_nca

        megatron_nca.register()
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list

    samples = max(tokens // SEQUENCE, 1)

    def build(defer: bool) -> tuple[float, object]:
        begin = time.process_time()
        # A mapped file is an open one, and 10,000 texts have 50,000: Megatron's settings for such numbers.
        config = GPTDatasetConfig(
            random_seed=1, sequence_length=SEQUENCE, path_to_cache=cache, tokenizer=Tokenizer(), split="1,0,0",
            blend=get_blend_from_list(words), reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
            create_attention_mask=False, mmap_bin_files=False, defer_npy_index_mmap=defer,
        )  # fmt: skip
        train = BlendedMegatronDatasetBuilder(GPTDataset, [samples, 0, 0], lambda: True, config).build()[0]
        return time.process_time() - begin, train

    before = peak_memory()
    seconds, train = build(defer=False)
    megabytes = peak_memory() - before
    for place in (0, samples - 1):
        _ = train[place]  # type: ignore[index]
    del train
    again, _ = build(defer=True)
    files = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
    return {"seconds": seconds, "again": again, "megabytes": megabytes, "files": files / 1e6}


def measure_plan(words: list[str], tokens: int) -> dict[str, float]:
    """Read a data path, lay it out, and look up positions of it.

    Returns:
        ``seconds`` to lay it out, ``megabytes`` of memory for it, ``look_up``: microseconds to find the source and
        index at a position.
    """
    from megatron_nca.data.batches import BatchBoundaries
    from megatron_nca.data.curriculum import plan_training, read_blend

    samples = max(tokens // SEQUENCE, 1)
    before = peak_memory()
    begin = time.process_time()
    plan = plan_training(read_blend((words, None)), SEQUENCE, samples, BatchBoundaries(1))
    plan.schedule.counts(samples)
    plan.schedule.locate(samples - 1)
    seconds = time.process_time() - begin
    megabytes = peak_memory() - before
    places = random.Random(1).choices(range(samples), k=LOOK_UPS)
    begin = time.process_time()
    for place in places:
        plan.schedule.locate(place)
    look_up = (time.process_time() - begin) / len(places)
    return {"seconds": seconds, "megabytes": megabytes, "look_up": look_up * 1e6}


def in_process(kind: str, count: int, tokens: int, folder: str) -> dict[str, float] | str:
    """Measure in a process of its own, forked from here, where everything is imported; without a figure returns why."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=measure, args=(sender, kind, count, tokens, folder))
    process.start()
    sender.close()
    try:
        return dict(receiver.recv()) if receiver.poll(PATIENCE) else f"not made in {PATIENCE} s"
    except EOFError:
        return "out of memory or of open files"
    finally:
        process.kill()
        process.join()


def measure(sender: Connection, kind: str, count: int, tokens: int, folder: str) -> None:
    """Be the process."""
    # The plugin prints its plan, of 10,000 words here.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    prefixes = [f"{folder}/text{number}" for number in range(count)]
    if kind == "plan":
        sender.send(measure_plan(data_path(prefixes, tokens), tokens))
        return
    words = data_path(prefixes, tokens) if kind == "phases" else blend(prefixes)
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        sender.send(measure_build(words, tokens, cache, kind == "phases"))


def allow_files(count: int) -> None:
    """Raise the limit of open files, what cannot be raised is met as an error in its row."""
    wanted = FILES * count + 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def print_built(counts: Sequence[int], longest: str, folder: str) -> None:
    """Print the table of whole builds, the two of a row one after the other."""
    print("| sources | phases | tokens | data | build, s | again, s | memory, MB | index files, MB |")
    print("|---:|---:|---:|---|---:|---:|---:|---:|")
    for count in counts:
        for length in (length for length in BUILT if LENGTHS[length] <= LENGTHS[longest]):
            for kind, phases in (("blend", "-"), ("phases", str(SOURCES[count] + 1))):
                found = in_process(kind, count, LENGTHS[length], folder)
                what = "Megatron's blend" if kind == "blend" else "phases"
                row = f"| {count:,} | {phases} | {length} | {what} | "
                if isinstance(found, str):
                    print(f"{row}{found} | | | |", flush=True)
                    continue
                print(
                    f"{row}{found['seconds']:.2f} | {found['again']:.2f} | {found['megabytes']:.0f} | {found['files']:.0f} |",
                    flush=True,
                )


def print_planned(counts: Sequence[int], folder: str) -> None:
    """Print the table of schedules."""
    print("| sources | phases | tokens | laid out in, s | memory, MB | a position found in, µs |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in counts:
        for length in ("1M", "1B", "1T"):
            found = in_process("plan", count, LENGTHS[length], folder)
            assert not isinstance(found, str), found
            print(
                f"| {count:,} | {SOURCES[count] + 1} | {length} | {found['seconds']:.3f} | {found['megabytes']:.1f} | "
                f"{found['look_up']:.0f} |",
                flush=True,
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out 10,000 sources and the longest build")
    arguments = parser.parse_args()
    counts = list(SOURCES)[:-1] if arguments.quick else list(SOURCES)
    allow_files(max(counts))
    warnings.simplefilter("ignore")
    import megatron.core.datasets.blended_megatron_dataset_builder  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        write_text(f"{folder}/text0", TEXT_TOKENS)
        for number in range(1, max(counts)):
            for suffix in (".bin", ".idx"):
                shutil.copyfile(f"{folder}/text0{suffix}", f"{folder}/text{number}{suffix}")
        print_built(counts, "1B" if arguments.quick else "10B", folder)
        print()
        print_planned(counts, folder)


if __name__ == "__main__":
    main()
