"""The engine's own count of deflated bytes is that of the original zlib, which is asked here and nowhere else."""

import hashlib
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton import deflate, known_sizes
from megatron_nca.automaton.deflate import deflated_size, parser
from megatron_nca.automaton.jit import entry
from megatron_nca.automaton.tokens import encode_patches
from megatron_nca.automaton.words import WORD_BYTES

ROOT = Path(__file__).parents[2]
ORIGINAL = (
    all(len(zlib.compress(data, 9)) == size for data, size in zip(known_sizes.samples(), known_sizes.KNOWN_SIZES, strict=True))
    and "ng" not in zlib.ZLIB_RUNTIME_VERSION
)

oracle = pytest.mark.skipif(not ORIGINAL, reason="this Python's zlib is not the original one, which is the oracle")


def expected(data):
    return len(zlib.compress(data, 9))


@oracle
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=3000))
def test_arbitrary_bytes(data):
    assert deflated_size(data) == expected(data)


@st.composite
def repetitive(draw):
    """Bytes with matches of all lengths and distances: an alphabet, a period, changes, runs."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    length = draw(st.sampled_from([1440, 5000, 33_000, 66_000, 140_000]))
    alphabet = draw(st.sampled_from([1, 2, 3, 16, 100, 256]))
    period = draw(st.sampled_from([1, 2, 3, 4, 5, 144, 257, 258, 259, 4095, 4097, 32_505, 32_506, 32_507, 32_768]))
    changed = draw(st.sampled_from([0.0, 0.0005, 0.01, 0.2]))
    data = np.resize(generator.integers(0, alphabet, period), length)
    data = np.where(generator.random(length) < changed, generator.integers(0, alphabet, length), data)
    if draw(st.booleans()):
        data = np.repeat(data, generator.integers(1, draw(st.sampled_from([2, 9, 600])), length))[:length]
    return data.astype(np.uint8).tobytes()


@pytest.mark.slow
@oracle
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(repetitive())
def test_repetitive_bytes(data):
    assert deflated_size(data) == expected(data)


@st.composite
def probes(draw):
    """Frames as a probe has them, of few rules and all kinds of processes."""
    colors = draw(st.sampled_from([2, 3, 5, 10, 16, 40]))
    patch = draw(st.sampled_from([patch for patch in (1, 2, 3) if colors ** (patch * patch) < 2**31 - 3]))
    grid = patch * draw(st.integers(-(-4 // patch), 64 // patch))
    config = NCAConfig(grid=grid, colors=colors, patch=patch, temperature=draw(st.sampled_from([0.0, 1e-4, 0.03])))
    frames = NCASource(config, seed=draw(st.integers(0, 2**31))).grids(0, 10)
    return encode_patches(config, frames).astype("<i4").tobytes()


@oracle
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(probes())
def test_probes(data):
    assert deflated_size(data) == expected(data)


@oracle
@pytest.mark.parametrize("symbols", [16_382, 16_383, 16_384, 32_766, 32_767])
def test_where_blocks_end(symbols):
    # Three bytes of a random pair's middle never repeat here, so every byte is a symbol.
    data = np.random.default_rng(symbols).integers(0, 256, symbols).astype(np.uint8).tobytes()
    assert deflated_size(data) == expected(data)
    # Skewed enough for codes longer than fifteen bits.
    steep = np.repeat(np.arange(24), 2 ** np.maximum(13 - np.arange(24), 0)).astype(np.uint8)
    data = np.random.default_rng(symbols).permutation(np.resize(steep, symbols)).tobytes()
    assert deflated_size(data) == expected(data)


@pytest.mark.parametrize("data", [b"", b"a", b"ab", b"abc", b"aaaa", b"abcabcabc", bytes(258), bytes(259), bytes(100_000)])
@oracle
def test_short_and_plain(data):
    assert deflated_size(data) == expected(data)


@entry
def sizes_in_pieces(source, total, ends, packer, lows, data):
    """Parse in pieces; keep each piece's lower bound, the last one's upper bound, and the size."""
    deflate.begin(total, packer)
    high, there = 0, 0
    for place in range(len(ends)):
        for byte in range(there, ends[place]):
            data[byte] = source[byte]
        there = ends[place]
        effort = 0
        while effort < 1:
            effort = deflate.parse(data, total, ends[place], 50, packer)
        lows[place], high = deflate.bounds(packer)
    return high, deflate.finish(data, total, packer)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.one_of(st.binary(min_size=1, max_size=2000), repetitive(), probes()), st.lists(st.floats(0, 1), max_size=12))
def test_pieces_and_interruptions_change_nothing_and_bounds_hold(data, cuts):
    ends = np.array([*sorted(int(cut * len(data)) for cut in cuts), len(data)])
    lows = np.zeros(len(ends), dtype=np.int64)
    room = np.frombuffer(data + bytes(WORD_BYTES), dtype=np.uint8).copy()
    high, size = sizes_in_pieces(room, len(data), ends, parser(len(data)), lows, np.full(len(room), 1, dtype=np.uint8))
    assert size == deflated_size(data)
    assert (lows <= size).all()
    assert high >= size


def test_a_parser_is_used_again_and_again():
    packer, lows = parser(3000), np.zeros(1, dtype=np.int64)
    generator = np.random.default_rng(5)
    for alphabet in (2, 200, 3, 256, 4):
        data = generator.integers(0, alphabet, 3000).astype(np.uint8).tobytes()
        room = np.frombuffer(data + bytes(WORD_BYTES), dtype=np.uint8).copy()
        # Near the end of the numbers that tell one input's positions from another's.
        packer[0][deflate.ORIGIN] = max(packer[0][deflate.ORIGIN], deflate.RESTART_AT - 8000)
        assert sizes_in_pieces(room, 3000, np.array([3000]), packer, lows, np.zeros_like(room))[1] == deflated_size(data)


WITHOUT = """
import sys
{prelude}
import hashlib
from megatron_nca import NCAConfig, NCASource
drawn = NCASource(NCAConfig(gzip=(0.5, 1.0)), seed=1234).tokens_batch([0, 1, 2, 3, 624], 1025)
print(hashlib.sha256(drawn.astype("<i4").tobytes()).hexdigest())
"""
PRELUDES = {
    "absent": "import numba, numpy; sys.modules['zlib'] = None",
    "another": """
import zlib
compress = zlib.compress
zlib.compress = lambda data, level=-1, wbits=15: compress(data, 1)
""",
    "zlib-ng": "import zlib_ng.zlib_ng; sys.modules['zlib'] = zlib_ng.zlib_ng",
    "isal": "import isal.isal_zlib; sys.modules['zlib'] = isal.isal_zlib",
}


@pytest.mark.slow
@pytest.mark.parametrize("library", PRELUDES)
def test_tokens_do_not_depend_on_the_library(library):
    if library in ("zlib-ng", "isal"):
        pytest.importorskip(library.replace("-", "_"), reason=f"{library} is not installed; its sizes need not be right here")
    tokens = NCASource(NCAConfig(gzip=(0.5, 1.0)), seed=1234).tokens_batch([0, 1, 2, 3, 624], 1025)
    program = WITHOUT.format(prelude=PRELUDES[library])
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert output.stdout.strip() == hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()
