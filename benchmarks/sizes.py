"""The engine's count of deflated bytes against zlib's, over probes of twenty processes.

Run as ``python -m benchmarks.sizes [--probes 1000000] [--seed 0]``. The zlib asked is this Python's, which must be the
original: it is refused unless it gives the known answers and has no other version's name. Probes are of random rules as a
search makes them; a long one fills several deflate blocks. Exit code 1 if a size differs.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib

import numpy as np

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.deflate import BITS, parser, stream_size
from megatron_nca.automaton.kernel_cache import forgiving_cache
from megatron_nca.automaton.known_sizes import KNOWN_SIZES, samples
from megatron_nca.automaton.tokens import encode_patches
from megatron_nca.automaton.words import WORD_BYTES

SETTINGS = (
    NCAConfig(),
    NCAConfig(grid=4),
    NCAConfig(grid=6, patch=3, colors=4),
    NCAConfig(grid=8, colors=2),
    NCAConfig(grid=8, patch=1),
    NCAConfig(grid=10, colors=5, temperature=0.01),
    NCAConfig(grid=12, colors=3),
    NCAConfig(grid=12, patch=1, colors=10),
    NCAConfig(grid=12, patch=3, colors=6),
    NCAConfig(grid=12, colors=40),
    NCAConfig(grid=12, temperature=0.0),
    NCAConfig(grid=12, dt=3, burn_in=0),
    NCAConfig(grid=12, identity_bias=2.0),
    NCAConfig(grid=16, colors=16),
    NCAConfig(grid=16, patch=4, colors=3),
    NCAConfig(grid=20, patch=2, colors=64),
    NCAConfig(grid=24, patch=2),
    NCAConfig(grid=32, patch=2, temperature=0.03),
    NCAConfig(grid=48, patch=1, temperature=0.3),
    NCAConfig(grid=64, patch=1, colors=30, temperature=1.0),
)
"""From four cells a side to sixty-four, frozen and noisy, of one block and of several."""
AT_ONCE = 256


def shares(probes: int) -> list[int]:
    """Return how many probes each setting gets: long ones fewer, as a probe of 64 x 64 costs two hundred of 4 x 4."""
    weights = np.array([1 / max(config.grid, 12) ** 2 / config.patch**-2 for config in SETTINGS])
    counts = np.maximum((probes * weights / weights.sum()).astype(int), 100)
    counts[0] += max(probes - counts.sum(), 0)
    return [int(count) for count in counts]


def size_and_blocks(data: bytes) -> tuple[int, int]:
    """Return the engine's size of a stream, and 1 for one block or 2 for more."""
    forgiving_cache(stream_size)
    array, packer = np.frombuffer(data + bytes(WORD_BYTES), dtype=np.uint8).copy(), parser(len(data))
    size, first = -1, True
    while size < 0:
        size, first = int(stream_size(array, len(data), first, packer)), False
    # Bits are added where a block ends before the last.
    return size, 1 + int(packer[0][BITS] > 0)


def compare(config: NCAConfig, count: int, seed: int) -> tuple[int, int, int]:
    """Compare a setting's probes.

    Returns:
        (probes whose size differs, probes longer than one block, bytes of a probe).
    """
    source = NCASource(config, seed=seed)
    wrong = long = length = 0
    for first in range(0, count, AT_ONCE):
        rules = np.arange(first, min(first + AT_ONCE, count), dtype=np.int64)
        frames = source.engine.probe(rules, np.zeros_like(rules))
        raw = encode_patches(config, frames).reshape(len(rules), -1).astype("<i4")
        length = 4 * raw.shape[1]
        for row in raw:
            data = row.tobytes()
            size, blocks = size_and_blocks(data)
            wrong += len(zlib.compress(data, 9)) != size
            long += blocks > 1
    return wrong, long, length


def main() -> int:
    """Print a row a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    original = all(len(zlib.compress(data, 9)) == known for data, known in zip(samples(), KNOWN_SIZES, strict=True))
    if not original or "ng" in zlib.ZLIB_RUNTIME_VERSION:
        print(f"this Python's zlib, {zlib.ZLIB_RUNTIME_VERSION}, is not the original one: nothing to compare with")
        return 2
    total = differing = 0
    begin = time.monotonic()
    print("| setting | bytes of a probe | probes | of several blocks | sized otherwise |\n|---|---:|---:|---:|---:|")
    for config, count in zip(SETTINGS, shares(arguments.probes), strict=True):
        wrong, long, length = compare(config, count, arguments.seed)
        total, differing = total + count, differing + wrong
        print(f"| {config.to_uri()} | {length:,} | {count:,} | {long:,} | {wrong:,} |", flush=True)
    print(f"\n{total:,} probes of {len(SETTINGS)} settings, zlib {zlib.ZLIB_RUNTIME_VERSION}: {differing:,} sized otherwise")
    print(f"{time.monotonic() - begin:.0f} s")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
