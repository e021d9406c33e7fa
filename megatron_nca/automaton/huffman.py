# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
"""The length of one deflate block: code lengths of its two trees, what describing them takes, and the cheapest of three forms.

RFC 1951 leaves to a compressor which of many optimal codes it uses, and the description of a code is part of the length. So
the trees are built as zlib's ``trees.c`` documents it: a heap in which of two equal frequencies the shallower subtree comes
first, codes longer than the limit pulled up one pair at a time, runs of lengths coded greedily.
"""

from __future__ import annotations

import numpy as np

from megatron_nca.automaton.jit import inlined, kernel

LITERALS = 286
"""256 bytes, the end of a block, and 29 classes of lengths."""
DISTANCES = 30
RUNS = 19
"""Code lengths 0 to 15, and three kinds of runs of them."""
END_OF_BLOCK = 256
LONGEST_CODE, LONGEST_RUN_CODE = 15, 7

LENGTH_EXTRA = np.array([0] * 8 + [bits for bits in range(1, 6) for _ in range(4)] + [0], dtype=np.int64)
"""Bits after the code of a class of lengths; the last class is length 258 alone."""
DISTANCE_EXTRA = np.array([0, 0] + [bits for bits in range(14) for _ in range(2)], dtype=np.int64)
EXTRA = np.concatenate([np.zeros(257, dtype=np.int64), LENGTH_EXTRA])
FIXED = np.array([8] * 144 + [9] * 112 + [7] * 24 + [8] * 6, dtype=np.int64)
FIXED_DISTANCE = 5
RUN_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], dtype=np.int64)
RUN_EXTRA = np.array([0] * 16 + [2, 3, 7], dtype=np.int64)

NODES = 2 * LITERALS + 1
TREE_WORDS = 4 * NODES + LONGEST_CODE + 1 + LITERALS + DISTANCES + 2 * RUNS
"""int32 words that the building of trees works in."""

LARGEST_COUNT = 1 << 14
ENTROPY = np.array([count * np.log2(count) if count else 0.0 for count in range(LARGEST_COUNT + 2)])
"""count * log2(count) for every count of symbols in a block. Used for bounds alone, with a byte to spare."""


@kernel
def sift(heap, size, keys, place):
    """Let the node at ``place`` sink to where both nodes below come after it."""
    node = heap[place]
    below = place << 1
    while below <= size:
        if below < size and keys[heap[below + 1]] <= keys[heap[below]]:
            below += 1
        if keys[node] <= keys[heap[below]]:
            break
        heap[place] = heap[below]
        place = below
        below <<= 1
    heap[place] = node


@kernel
def code_lengths(counts, lengths, work):
    """Build a code; write the length of each symbol's code, and return the last symbol that has one.

    ``work`` holds the heap, then nodes in the order of their removal, and keys: frequency << 8 | depth, which orders nodes.
    """
    heap, keys, parent, depth = work[:NODES], work[NODES : 2 * NODES], work[2 * NODES : 3 * NODES], work[3 * NODES : 4 * NODES]
    elements = len(lengths)
    longest = LONGEST_RUN_CODE if elements == RUNS else LONGEST_CODE
    size, last = 0, -1
    for symbol in range(elements):
        lengths[symbol] = 0
        if counts[symbol]:
            size += 1
            heap[size] = symbol
            last = symbol
            keys[symbol] = counts[symbol] << 8
    # A code has two symbols at least, used or not.
    while size < 2:
        forced = 0
        if last < 2:
            last += 1
            forced = last
        size += 1
        heap[size] = forced
        keys[forced] = 1 << 8
    for place in range(size >> 1, 0, -1):
        sift(heap, size, keys, place)
    top, node = NODES, elements
    while size >= 2:
        one = heap[1]
        heap[1] = heap[size]
        size -= 1
        sift(heap, size, keys, 1)
        other = heap[1]
        top -= 2
        # The heap shrinks from the end that the order of removal grows into.
        heap[top + 1], heap[top] = one, other
        deeper = max(keys[one] & 255, keys[other] & 255) + 1
        keys[node] = (((keys[one] >> 8) + (keys[other] >> 8)) << 8) | deeper
        parent[one] = parent[other] = node
        heap[1] = node
        node += 1
        sift(heap, size, keys, 1)
    top -= 1
    heap[top] = heap[1]
    limit_lengths(heap, top, parent, depth, work[4 * NODES : 4 * NODES + LONGEST_CODE + 1], last, longest, lengths)
    return last


@inlined
def limit_lengths(heap, top, parent, depth, of_length, last, longest, lengths):
    """Turn depths into lengths; where some exceed the limit, lengthen others until the code fits."""
    of_length[:] = 0
    depth[heap[top]] = 0
    overflow = 0
    for place in range(top + 1, NODES):
        node = heap[place]
        bits = depth[parent[node]] + 1
        if bits > longest:
            bits = longest
            overflow += 1
        depth[node] = bits
        if node <= last:
            of_length[bits] += 1
            lengths[node] = bits
    if overflow == 0:
        return
    while overflow > 0:
        bits = longest - 1
        while of_length[bits] == 0:
            bits -= 1
        of_length[bits] -= 1
        of_length[bits + 1] += 2
        of_length[longest] -= 1
        overflow -= 2
    place = NODES
    for bits in range(longest, 0, -1):
        remaining = of_length[bits]
        while remaining:
            place -= 1
            if heap[place] <= last:
                lengths[heap[place]] = bits
                remaining -= 1


@kernel
def count_runs(lengths, last, runs):
    """Count the symbols that describe the code lengths of symbols 0 to ``last``."""
    previous, following, count = -1, lengths[0], 0
    most, least = (138, 3) if following == 0 else (7, 4)
    for symbol in range(last + 1):
        length = following
        following = lengths[symbol + 1] if symbol < last else -1
        count += 1
        if count < most and length == following:
            continue
        if count < least:
            runs[length] += count
        elif length:
            if length != previous:
                runs[length] += 1
            runs[16] += 1
        elif count <= 10:
            runs[17] += 1
        else:
            runs[18] += 1
        count, previous = 0, length
        if following == 0:
            most, least = 138, 3
        elif length == following:
            most, least = 6, 3
        else:
            most, least = 7, 4


@inlined
def own_code_bits(literals, distances, work):
    """Bits of a block with a code of its own, its description included."""
    first = 4 * NODES + LONGEST_CODE + 1
    literal_lengths = work[first : first + LITERALS]
    distance_lengths = work[first + LITERALS : first + LITERALS + DISTANCES]
    run_lengths = work[first + LITERALS + DISTANCES : first + LITERALS + DISTANCES + RUNS]
    runs = work[first + LITERALS + DISTANCES + RUNS : first + LITERALS + DISTANCES + 2 * RUNS]
    last_literal = code_lengths(literals, literal_lengths, work)
    last_distance = code_lengths(distances, distance_lengths, work)
    runs[:] = 0
    count_runs(literal_lengths, last_literal, runs)
    count_runs(distance_lengths, last_distance, runs)
    code_lengths(runs, run_lengths, work)
    last_run = RUNS - 1
    while last_run >= 3 and run_lengths[RUN_ORDER[last_run]] == 0:
        last_run -= 1
    bits = 3 * (last_run + 1) + 5 + 5 + 4
    for symbol in range(RUNS):
        bits += runs[symbol] * (run_lengths[symbol] + RUN_EXTRA[symbol])
    for symbol in range(LITERALS):
        bits += literals[symbol] * (literal_lengths[symbol] + EXTRA[symbol])
    for symbol in range(DISTANCES):
        bits += distances[symbol] * (distance_lengths[symbol] + DISTANCE_EXTRA[symbol])
    return bits


@kernel
def fixed_code_bits(literals, distances):
    """Bits of a block in the code that needs no description."""
    bits = 0
    for symbol in range(LITERALS):
        bits += literals[symbol] * (FIXED[symbol] + EXTRA[symbol])
    for symbol in range(DISTANCES):
        bits += distances[symbol] * (FIXED_DISTANCE + DISTANCE_EXTRA[symbol])
    return bits


@kernel
def block_end(bits, literals, distances, stored, work):
    """Return the stream's bits after a block, which takes the form that zlib chooses.

    Args:
        bits: Length of the stream before the block.
        literals: Counts of literals, lengths and the end of the block, int32 (286,).
        distances: Counts of distances, int32 (30,).
        stored: Bytes that the block covers, or -1 where they are no longer there to be stored.
        work: int32 (TREE_WORDS,).
    """
    fixed = fixed_code_bits(literals, distances)
    own = own_code_bits(literals, distances, work)
    own_bytes, fixed_bytes = (own + 10) >> 3, (fixed + 10) >> 3
    if fixed_bytes <= own_bytes:
        own, own_bytes = fixed, fixed_bytes
    if stored >= 0 and stored + 4 <= own_bytes:
        return ((bits + 3 + 7) >> 3 << 3) + 32 + 8 * stored
    return bits + 3 + own


@inlined
def least_bits(literals, distances):
    """Return a bound that no code of its own for these counts, nor for these and more, can undercut.

    The entropy bounds the symbols; the description takes 26 bits for the code of the runs, and half a bit at least for each
    length, since no symbol stands for more than six and three bits make one. One byte is left to floating point.
    """
    bits, total, used = 18.0, 0, 0
    for symbol in range(LITERALS):
        count = literals[symbol]
        total += count
        used += count > 0
        bits += count * EXTRA[symbol] - ENTROPY[count]
    bits += ENTROPY[total]
    total = 0
    for symbol in range(DISTANCES):
        count = distances[symbol]
        total += count
        used += count > 0
        bits += count * DISTANCE_EXTRA[symbol] - ENTROPY[count]
    return np.int64(bits + ENTROPY[total] + used / 2)
