"""The kernels run as Python, so that coverage sees which of their lines are executed: python -m tests.automaton.interpreted.

A compiled line leaves no trace. Here nothing is compiled, settings are tiny, and what comes out is compared with the reference
engine's trajectories and the original zlib's sizes. Ends with 1 where one differs.
"""

import random
import sys
import zlib

import numpy as np

from megatron_nca.automaton import jit, kernel_cache, words


def uncompiled(function):
    function.py_func = function
    return function


def word_at(array, place):
    return np.uint64(int.from_bytes(array[int(place) : int(place) + words.WORD_BYTES].tobytes(), "little"))


def equal_bytes(difference):
    bits = int(difference)
    return np.int64(words.WORD_BYTES if bits == 0 else ((bits & -bits).bit_length() - 1) // 8)


# Before the modules that hold kernels are imported, each of which takes these by name.
jit.entry = jit.kernel = jit.inlined = uncompiled
words.word_at, words.equal_bytes = word_at, equal_bytes
kernel_cache.forgiving_cache = lambda function: None

from megatron_nca import NCAConfig  # noqa: E402
from megatron_nca.automaton import compiled, deflate  # noqa: E402
from megatron_nca.automaton.reference import ReferenceEngine  # noqa: E402
from tests.automaton.test_deflate import ORIGINAL  # noqa: E402

# Compiled, a byte and a number make a wider number; with NumPy's scalars they do not.
deflate.LENGTH_CLASS, deflate.DISTANCE_CLASS = (table.astype(int) for table in (deflate.LENGTH_CLASS, deflate.DISTANCE_CLASS))

CONFIGS = (
    NCAConfig(grid=4, patch=2, colors=3, burn_in=1),
    NCAConfig(grid=6, patch=3, colors=2, burn_in=2, dt=2, temperature=0.0),
    NCAConfig(grid=4, patch=1, colors=9, burn_in=0, temperature=1.0, identity_bias=0.5),
)
"""With and without noise, with and without a bias towards the cell's own colour, of more colours than one block of draws."""

BANDED = NCAConfig(grid=4, patch=2, colors=2, burn_in=0, gzip=(0.3, 0.8))


def uneven(seed):
    """Return bytes each of which is rarer than the one before."""
    generator = np.random.default_rng(seed)
    length, ratio = int(generator.choice([200, 400, 800, 1500])), generator.uniform(1.2, 2.2)
    weights = np.maximum(ratio ** -np.arange(256.0), generator.choice([0, 1e-3, 1e-4]))
    return generator.choice(256, length, p=weights / weights.sum()).astype(np.uint8).tobytes()


def texts():
    """Yield bytes without a match, with near, far and overlapping ones, of several blocks, and of very uneven frequencies."""
    numbers = random.Random(0)
    noise = bytes(numbers.randrange(256) for _ in range(400))
    yield b""
    yield b"ab"
    yield noise
    yield bytes(700)
    yield noise[:60] * 3 + bytes(range(64)) + noise[20:90]
    yield b"".join(numbers.choice([b"abc", b"abcd", b"xyabcq", b"\0"]) for _ in range(300))
    yield bytes(numbers.randrange(256) for _ in range(17_000))
    # Its tree of code lengths would be deeper than seven bits.
    yield uneven(470)


def differences():
    """Yield what the kernels make otherwise than they should."""
    numbers = np.arange(2)
    for config in CONFIGS:
        # Every call of the kernel does a little of its work, and the next one goes on there.
        compiled.BUDGET = 2_000
        engine, reference = compiled.CompiledEngine(config, (7, 11)), ReferenceEngine(config, (7, 11))
        attempts = np.zeros(2, dtype=np.int64)
        length = 3 * config.frame_length - 1
        if not np.array_equal(
            engine.tokens(numbers, attempts, numbers, length), reference.tokens(numbers, attempts, numbers, length)
        ):
            yield f"tokens of {config}"
        if not np.array_equal(engine.grids(numbers, attempts, numbers, 2), reference.grids(numbers, attempts, numbers, 2)):
            yield f"frames of {config}"
        if not np.array_equal(engine.probe(numbers, attempts), reference.probe(numbers, attempts)):
            yield f"probes of {config}"
    engine, reference = compiled.CompiledEngine(BANDED, (7, 11)), ReferenceEngine(BANDED, (7, 11))
    found = engine.find_rules(numbers)
    if not np.array_equal(found, reference.find_rules(numbers)) or not engine.accepted(numbers, found).all():
        yield f"rules of {BANDED}"
    # Another zlib, as a Python may have, compresses otherwise.
    for text in texts() if ORIGINAL else ():
        if deflate.deflated_size(text) != len(zlib.compress(text, 9)):
            yield f"size of {len(text)} bytes"


if __name__ == "__main__":
    with np.errstate(over="ignore"):
        wrong = list(differences())
    print(*(f"interpreted kernels differ: {one}" for one in wrong), sep="\n", end="")
    sys.exit(bool(wrong))
