# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
"""The length of what zlib's level 9 would make of some bytes, without making it.

A rule is kept or not by this number, so it is part of what a token is: computed here, it is the same whatever library is
installed. The format is RFC 1951's; which matches are taken is zlib's documented algorithm (``deflate.c``: ``deflate_slow``
with hash chains over a window of 32 KiB) at level 9, memory level 8:

* positions whose three bytes hash alike form a chain, searched backwards over at most 4,096 links, or a quarter of that where
  the match one byte earlier is 32 long already;
* a match is taken only if the one that begins a byte later is not longer; matches of three from further than 4,096 are not;
* a block ends after 16,383 symbols, and is stored, or coded with the fixed code, or with one of its own.

Bytes may arrive in pieces, as a probe's frames do; a parser stops where it would have to look beyond what is there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.huffman import (
    DISTANCE_EXTRA,
    DISTANCES,
    END_OF_BLOCK,
    LENGTH_EXTRA,
    LITERALS,
    TREE_WORDS,
    block_end,
    fixed_code_bits,
    least_bits,
)
from megatron_nca.automaton.jit import entry, inlined, kernel
from megatron_nca.automaton.kernel_cache import forgiving_cache
from megatron_nca.automaton.words import WORD_BYTES, equal_bytes, word_at

SHORTEST, LONG, LONGEST = 3, 4, 258
"""Lengths of matches in bytes: the shortest, the shortest found by a hash of four bytes, the longest."""
WINDOW = 1 << 15
LOOKAHEAD = LONGEST + SHORTEST + 1
"""Bytes ahead of the parser that zlib keeps filled, as long as there are any."""
FURTHEST = WINDOW - LOOKAHEAD
FAR = 4096
LINKS, LINKS_OF_GOOD, GOOD = 4096, 1024, 32
BLOCK_SYMBOLS = (1 << 14) - 1
HASH_SHIFT, HASHES = 5, 1 << 15
BYTE, THREE_BYTES, FOUR_BYTES = np.uint64(0xFF), np.uint64(0xFFFFFF), np.uint64(0xFFFFFFFF)
EIGHT, SIXTEEN = np.uint64(8), np.uint64(16)
LONG_HASH_BITS, SCATTER = 13, np.uint64(0x9E3779B1)
HEADER_AND_SUM = 6
"""Bytes that a zlib stream adds to the deflated data."""

AT, BASE, LENGTH, START, PENDING, BLOCK, SYMBOLS, BITS, ORIGIN, CURSOR_WORDS = range(10)
"""Words of a parser's cursor: its place, the window's first byte, the match before, whether a literal waits, the block's first
byte and symbols, the bits so far; and where these bytes lie among all that this parser has read, which keeps the hash table's
entries of earlier ones apart without clearing it."""
RESTART_AT = 1 << 30
EFFORT = 1 << 26
"""Links after which Python may have its turn, a fraction of a second's work."""


def _classes(extra: npt.NDArray[np.int64], first: int, count: int) -> npt.NDArray[np.uint8]:
    """Return the class of each of ``count`` numbers, where class c holds 2**extra[c] numbers."""
    sizes = 2**extra
    return np.repeat(np.arange(len(extra)), sizes)[first : first + count].astype(np.uint8)


LENGTH_CLASS = _classes(LENGTH_EXTRA, 0, LONGEST - SHORTEST + 1)
LENGTH_CLASS[-1] = len(LENGTH_EXTRA) - 1
DISTANCE_CLASS = _classes(DISTANCE_EXTRA, 0, WINDOW)


def parser(total: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return what parsing ``total`` bytes at most works in: (cursor, hash tables, chains and ranks, counts and trees)."""
    table = np.full(HASHES + (1 << LONG_HASH_BITS), -1, dtype=np.int32)
    chains = np.zeros(3 * min(WINDOW, 1 << max(total - 1, 1).bit_length()), dtype=np.int32)
    return np.zeros(CURSOR_WORDS, dtype=np.int64), table, chains, np.zeros(LITERALS + DISTANCES + TREE_WORDS, dtype=np.int32)


def deflated_size(data: bytes) -> int:
    """Return the size in bytes of the zlib stream of ``data`` at level 9."""
    forgiving_cache(stream_size)
    array, packer = np.frombuffer(data + bytes(WORD_BYTES), dtype=np.uint8).copy(), parser(len(data))
    size, first = -1, True
    while size < 0:
        size = int(stream_size(array, len(data), first, packer))
        first = False
    return size


@entry
def stream_size(data, total, first, packer):
    """Return the size of a whole stream, or -1 to be called again, no longer ``first``."""
    if first:
        begin(total, packer)
    if parse(data, total, total, EFFORT, packer) < 1:
        return -1
    return finish(data, total, packer)


@inlined
def begin(total, packer):
    """Get a parser's arrays ready for ``total`` bytes."""
    cursor, table, _, counts = packer
    origin = cursor[ORIGIN] + cursor[AT] + 1
    if origin + total > RESTART_AT:
        table[:] = -1
        origin = 0
    cursor[:] = 0
    cursor[ORIGIN] = origin
    cursor[LENGTH] = SHORTEST - 1
    counts[: LITERALS + DISTANCES] = 0


@kernel
def parse(data, total, available, effort, packer):
    """Parse as far as the bytes that are there allow: up to a match that could be longer if there were more.

    Args:
        data: uint8 (total + 8,), of which the first ``available`` are there.
        total: Bytes in the end.
        available: Bytes so far.
        effort: Links that may be followed, roughly.
        packer: The arrays of ``parser``; ``begin`` was called on them.

    Returns:
        The effort left. Below 1 it may be that not all has been done that could be: call again.
    """
    cursor, table, chains, counts = packer
    literals, distances, work = counts[:LITERALS], counts[LITERALS : LITERALS + DISTANCES], counts[LITERALS + DISTANCES :]
    room = len(chains) // 3
    near, far, ranks = chains[:room], chains[room : 2 * room], chains[2 * room :]
    at, base, length, start = cursor[AT], cursor[BASE], cursor[LENGTH], cursor[START]
    pending, block, symbols, bits, origin = cursor[PENDING], cursor[BLOCK], cursor[SYMBOLS], cursor[BITS], cursor[ORIGIN]
    whole = available == total
    last = total if whole else available - WORD_BYTES
    while at < last and effort > 0:
        if at - base >= WINDOW + FURTHEST and min(total, base + 2 * WINDOW) - at < LOOKAHEAD:
            base += WINDOW
        before, start_before = length, start
        # A match is followed by hashes of four bytes, which must be there.
        if not whole and at + before + SHORTEST > available:
            break
        effort -= 1
        length = SHORTEST - 1
        if at + SHORTEST <= total:
            here = hashes(data, at)
            candidate = np.int64(table[here[0]]) - origin
            reach = min(LONGEST, available - at)
            # The window's first byte is never matched: its number stands for the end of a chain.
            if candidate > base and before < reach and at - candidate <= FURTHEST:
                floor = max(base, at - FURTHEST)
                far_candidate = np.int64(table[here[1]]) - origin
                length, start, followed = longest_match(
                    data, at, candidate, far_candidate, before, start, reach, floor, origin, near, far, ranks
                )
                effort -= followed
                if not whole and reach < LONGEST and length == reach:
                    length, start, effort = before, start_before, max(effort, 1)
                    break
                if length == SHORTEST and at - start > FAR:
                    length = SHORTEST - 1
            insert(at, origin, here, table, near, far, ranks)
        if before >= SHORTEST and length <= before:
            literals[END_OF_BLOCK + 1 + LENGTH_CLASS[before - SHORTEST]] += 1
            distances[DISTANCE_CLASS[at - 2 - start_before]] += 1
            symbols += 1
            end = at + before - 1
            for place in range(at + 1, min(end, total - SHORTEST + 1)):
                insert(place, origin, hashes(data, place), table, near, far, ranks)
            at, pending, length = end, 0, SHORTEST - 1
            block_to = at
        else:
            if pending:
                literals[data[at - 1]] += 1
                symbols += 1
            block_to = at
            pending = 1
            at += 1
        if symbols == BLOCK_SYMBOLS:
            literals[END_OF_BLOCK] += 1
            bits = block_end(bits, literals, distances, block_to - block if block >= base else -1, work)
            counts[: LITERALS + DISTANCES] = 0
            block, symbols = block_to, 0
    cursor[AT], cursor[BASE], cursor[LENGTH], cursor[START] = at, base, length, start
    cursor[PENDING], cursor[BLOCK], cursor[SYMBOLS], cursor[BITS] = pending, block, symbols, bits
    return effort


@kernel
def hashes(data, at):
    """Return the places in the table of zlib's hash of three bytes and of one of four."""
    word = word_at(data, at)
    three = ((word & BYTE) << np.uint64(2 * HASH_SHIFT)) ^ (((word >> EIGHT) & BYTE) << np.uint64(HASH_SHIFT))
    three = (three ^ ((word >> SIXTEEN) & BYTE)) & np.uint64(HASHES - 1)
    four = (((word & FOUR_BYTES) * SCATTER) & FOUR_BYTES) >> np.uint64(32 - LONG_HASH_BITS)
    return three, np.uint64(HASHES) + four


@kernel
def insert(at, origin, here, table, near, far, ranks):
    """Put a position at the head of its two chains, and number it within the first."""
    mask = len(near) - 1
    place = np.uint64(at & mask)
    near[place], far[place] = table[here[0]], table[here[1]]
    earlier = np.int64(near[place]) - origin
    ranks[place] = ranks[np.uint64(earlier & mask)] + 1 if earlier >= 0 and at - earlier <= mask else 0
    table[here[0]] = table[here[1]] = at + origin


@inlined
def longest_match(data, at, candidate, far_candidate, best, start, reach, floor, origin, near, far, ranks):
    """Find the longest of the matches longer than ``best`` that zlib comes upon, of equal ones the nearest.

    Matches of four and more bytes are looked for along the shorter chain of equal fours. Both are on zlib's chain, of equal
    threes, so the difference of their ranks in it is the number of links that zlib follows from one to the other.

    Returns:
        (length, its start, links followed); the length is ``best`` where there is none.
    """
    mask = len(near) - 1
    lowest = ranks[np.uint64(candidate & mask)] + 1 - (LINKS_OF_GOOD if best >= GOOD else LINKS)
    first = word_at(data, at)
    last = word_at(data, at + best - WORD_BYTES + 1) if best >= WORD_BYTES else first
    followed, shortest, head = 0, best, candidate
    # zlib takes the head of its chain from one byte further than the rest.
    while reach >= LONG and (far_candidate > floor or far_candidate == head):
        followed += 1
        length = 0
        if best < WORD_BYTES or word_at(data, far_candidate + best - WORD_BYTES + 1) == last:
            length = equal_bytes(word_at(data, far_candidate) ^ first)
        # Hashes of unequal fours may be equal.
        if length >= LONG and (length > best or length == WORD_BYTES):
            if ranks[np.uint64(far_candidate & mask)] < lowest:
                break
            if length == WORD_BYTES:
                length = extended(data, at, far_candidate, reach)
            length = min(length, reach)
            if length > best:
                best, start = length, far_candidate
                if length == reach:
                    break
                if best >= WORD_BYTES:
                    last = word_at(data, at + best - WORD_BYTES + 1)
        far_candidate = np.int64(far[np.uint64(far_candidate & mask)]) - origin
    if shortest < SHORTEST and best == shortest:
        while (candidate > floor or candidate == head) and ranks[np.uint64(candidate & mask)] >= lowest:
            followed += 1
            if (word_at(data, candidate) ^ first) & THREE_BYTES == 0:
                best, start = SHORTEST, candidate
                break
            candidate = np.int64(near[np.uint64(candidate & mask)]) - origin
    return best, start, followed


@inlined
def extended(data, at, candidate, reach):
    """Length of a match whose first eight bytes are equal; may be beyond ``reach``."""
    length = WORD_BYTES
    while length < reach:
        equal = equal_bytes(word_at(data, candidate + length) ^ word_at(data, at + length))
        length += equal
        if equal < WORD_BYTES:
            break
    return length


@inlined
def finish(data, total, packer):
    """Return the bytes of the whole stream, once all has been parsed."""
    cursor, _, _, counts = packer
    literals, distances, work = counts[:LITERALS], counts[LITERALS : LITERALS + DISTANCES], counts[LITERALS + DISTANCES :]
    if cursor[PENDING]:
        literals[data[total - 1]] += 1
        cursor[PENDING] = 0
    literals[END_OF_BLOCK] += 1
    stored = total - cursor[BLOCK] if cursor[BLOCK] >= cursor[BASE] else -1
    bits = block_end(cursor[BITS], literals, distances, stored, work)
    return ((bits + 7) >> 3) + HEADER_AND_SUM


@inlined
def bounds(packer):
    """Return between which sizes that of the whole stream lies if it ends here; the first also bounds any that goes on."""
    cursor, _, _, counts = packer
    literals, distances = counts[:LITERALS], counts[LITERALS : LITERALS + DISTANCES]
    own, fixed = least_bits(literals, distances), fixed_code_bits(literals, distances)
    covered = cursor[AT] - cursor[PENDING] - cursor[BLOCK]
    before = cursor[BITS] + 3
    least = min(min(own, fixed), 32 + 8 * covered)
    # A waiting literal takes 9 bits at most and the end of the block 7; forms are compared in whole bytes, and a stored block
    # begins at one: 17 bits. One byte is to spare.
    most = fixed + 9 + 7 + 17 + 8
    return ((before + least + 7) >> 3) + HEADER_AND_SUM, ((before + most + 7) >> 3) + HEADER_AND_SUM
