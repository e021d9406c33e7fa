# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
"""The compiled engine's steps: the reference's, on sixteen cells at a time.

Where the reference works on whole arrays, these work on a few rows of cells that fit the first-level cache, in three passes:

* a cell's sixteen hidden units are the sum of nine rows of the rule's table; the torus has a halo, so no index wraps;
* turned around, a colour's scores of sixteen cells at a time are sixteen multiply-adds;
* the best colour of each cell, and how many come near it, are comparisons down the colours.

Noise matters only for colours within its range of the best. Random numbers have addresses, so those that cannot matter are not
drawn. A step that drew none and changed no cell will repeat for ever, and is not repeated.

Scores are sums of integer products below 2**24, for which float32 is exact in any order.
"""

from __future__ import annotations

import numpy as np

from megatron_nca.automaton.jit import inlined, kernel
from megatron_nca.automaton.philox import MULTIPLIERS, ROUNDS, WEYL, Purpose
from megatron_nca.automaton.rule import FEATURES, HIDDEN, READOUT_BITS, TABLE_BITS
from megatron_nca.automaton.tables import WEIGHT_BITS

LANES = 16
"""Cells are padded to a multiple of this, so that loops over them have no remainder."""

CELLS_AT_ONCE = 256
"""Cells whose hidden units and scores fit the first-level cache."""

M0, M1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
W0, W1 = (np.uint64(increment) for increment in WEYL)
WORD, HALF_WORD = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF)
THIRTY_TWO, SIXTEEN, THREE, ONE = np.uint64(32), np.uint64(16), np.uint64(3), np.uint64(1)
UNITS = np.uint64(HIDDEN)
TABLE_SHIFT = 2 * WEIGHT_BITS - TABLE_BITS
READOUT_SHIFT = WEIGHT_BITS - READOUT_BITS
PURPOSE_WEIGHTS = np.uint64(Purpose.WEIGHTS)
ZERO, UNIT = np.float32(0), np.float32(1)


@kernel
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 on words held in uint64."""
    for _ in range(ROUNDS):
        product0, product1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (
            (product1 >> THIRTY_TWO) ^ c1 ^ k0,
            product1 & WORD,
            (product0 >> THIRTY_TWO) ^ c3 ^ k1,
            product0 & WORD,
        )
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return c0, c1, c2, c3


@kernel
def address(purpose, index, attempt):
    """Return the parts of a counter that one trajectory or rule keeps: (purpose word, index word, attempt word)."""
    number = np.uint64(index)
    return np.uint64(purpose) << np.uint64(24), number & WORD, (np.uint64(attempt) << SIXTEEN) | (number >> THIRTY_TWO)


@kernel
def fill_draws(out, count, step, where, k0, k1):
    """Write ``count`` 16-bit draws, rounded up to whole blocks, into ``out``."""
    blocks = (np.uint64(count) + np.uint64(7)) >> THREE
    for block in range(blocks):
        drawn = philox(np.uint64(step), where[0] | np.uint64(block), where[1], where[2], k0, k1)
        at = np.uint64(block) << THREE
        for word in range(4):
            out[at + np.uint64(2 * word)] = drawn[word] & HALF_WORD
            out[at + np.uint64(2 * word + 1)] = drawn[word] >> SIXTEEN


@kernel
def sample_rule(index, attempt, colors, k0, k1, quantiles, draws, table, readout):
    """Draw a rule: ``table`` float32 (9 * colors * 16,), ``readout`` float32 (colors * 16,)."""
    channels = colors + 2
    mixing = 9 * channels * FEATURES
    fill_draws(draws, mixing + FEATURES * HIDDEN + HIDDEN * colors, 0, address(PURPOSE_WEIGHTS, index, attempt), k0, k1)
    for place in range(9):
        for colour in range(colors):
            for unit in range(HIDDEN):
                total = 0
                for feature in range(FEATURES):
                    row = place * channels
                    weight = np.int64(quantiles[draws[(row + colour + 1) * FEATURES + feature]])
                    if colour == 0:
                        weight += quantiles[draws[(row + channels - 1) * FEATURES + feature]]
                    if colour == colors - 1:
                        weight += quantiles[draws[row * FEATURES + feature]]
                    total += weight * quantiles[draws[mixing + feature * HIDDEN + unit]]
                rounded = (total + (1 << (TABLE_SHIFT - 1))) >> TABLE_SHIFT
                table[(place * colors + colour) * HIDDEN + unit] = rounded
    first = mixing + FEATURES * HIDDEN
    for unit in range(HIDDEN):
        for colour in range(colors):
            weight = np.int64(quantiles[draws[first + unit * colors + colour]])
            readout[colour * HIDDEN + unit] = (weight + (1 << (READOUT_SHIFT - 1))) >> READOUT_SHIFT


@kernel
def initial_state(index, attempt, logits, cells, grid, colors, k0, k1, odds, draws, bounds, state):
    """Draw the cells of a state with halo, uint8 ((grid + 2)**2,), from one softmax."""
    fill_draws(draws, colors, 0, address(logits, index, attempt), k0, k1)
    total = np.uint64(0)
    for colour in range(colors):
        total += np.uint64(odds[draws[colour]])
        bounds[colour] = total
    where = address(cells, index, attempt)
    for block in range((grid * grid + 3) // 4):
        drawn = philox(np.uint64(0), where[0] | np.uint64(block), where[1], where[2], k0, k1)
        for word in range(min(4, grid * grid - 4 * block)):
            target = (drawn[word] * total) >> THIRTY_TWO
            colour = 0
            while target >= bounds[colour]:
                colour += 1
            cell = 4 * block + word
            state[(cell // grid + 1) * (grid + 2) + cell % grid + 1] = colour
    wrap_halo(state, grid)


@kernel
def wrap_halo(state, grid):
    """Copy the torus's edges into the halo."""
    width = grid + 2
    for row in range(1, grid + 1):
        state[row * width] = state[row * width + grid]
        state[row * width + grid + 1] = state[row * width + 1]
    for column in range(width):
        state[column] = state[grid * width + column]
        state[(grid + 1) * width + column] = state[width + column]


@kernel
def noisy_colour(scores, at, room, limit, colors, noise, where, step, cell, k0, k1):
    """Draw a cell's colour among those whose score reaches ``limit``."""
    blocks = (colors + 7) // 8
    chosen, best = 0, np.int64(-(1 << 62))
    for block in range(blocks):
        begin, end = 8 * block, min(8 * block + 8, colors)
        wanted = False
        for colour in range(begin, end):
            wanted |= scores[colour * room + at] >= limit
        if not wanted:
            continue
        drawn = philox(np.uint64(step), where[0] | np.uint64(cell * blocks + block), where[1], where[2], k0, k1)
        for colour in range(begin, end):
            score = scores[colour * room + at]
            if score >= limit:
                word = drawn[(colour - begin) >> 1]
                half = (word >> SIXTEEN) if colour & 1 else (word & HALF_WORD)
                noisy = np.int64(score) + noise[half]
                if noisy > best:
                    chosen, best = colour, noisy
    return chosen


@kernel
def perceive(state, first, rows_of_cells, grid, colors, units, table, hidden):
    """Sum what the nine neighbours of each cell add, and rectify: ``hidden`` float32 (cells * 16,)."""
    width, rows = np.uint64(grid + 2), np.uint64(colors) * UNITS
    cell = np.uint64(0)
    for y in range(first, first + rows_of_cells):
        for x in range(grid):
            at = np.uint64(y + 1) * width + np.uint64(x + 1)
            north, south = at - width, at + width
            r0 = np.uint64(state[north - ONE]) * UNITS
            r1 = np.uint64(state[north]) * UNITS + rows
            r2 = np.uint64(state[north + ONE]) * UNITS + np.uint64(2) * rows
            r3 = np.uint64(state[at - ONE]) * UNITS + np.uint64(3) * rows
            r4 = np.uint64(state[at]) * UNITS + np.uint64(4) * rows
            r5 = np.uint64(state[at + ONE]) * UNITS + np.uint64(5) * rows
            r6 = np.uint64(state[south - ONE]) * UNITS + np.uint64(6) * rows
            r7 = np.uint64(state[south]) * UNITS + np.uint64(7) * rows
            r8 = np.uint64(state[south + ONE]) * UNITS + np.uint64(8) * rows
            for unit in range(units):
                j = np.uint64(unit)
                upper = table[r0 + j] + table[r1 + j] + table[r2 + j]
                middle = table[r3 + j] + table[r4 + j] + table[r5 + j]
                lower = table[r6 + j] + table[r7 + j] + table[r8 + j]
                total = upper + middle + lower
                hidden[cell + j] = total if total > ZERO else ZERO
            cell += UNITS


@kernel
def transpose(hidden, cells, room, by_unit):
    """Turn (cells, 16) into (16, room), so that what follows has cells in its lanes."""
    for unit in range(UNITS):
        row = np.uint64(unit) * room
        for cell in range(cells):
            by_unit[row + np.uint64(cell)] = hidden[np.uint64(cell) * UNITS + np.uint64(unit)]


@kernel
def score_colours(by_unit, readout, colors, cells, room, scores):
    """Write the score of each colour in each cell: ``scores`` float32 (colors * room,)."""
    for colour in range(np.uint64(colors)):
        row = np.uint64(colour) * room
        first = np.uint64(colour) * UNITS
        for place in range(cells):
            cell = np.uint64(place)
            total = ZERO
            for unit in range(UNITS):
                j = np.uint64(unit)
                total += by_unit[j * room + cell] * readout[first + j]
            scores[row + cell] = total


@kernel
def choose(scores, colors, cells, room, best, chosen):
    """Find each cell's best score and the lowest colour that has it."""
    for place in range(cells):
        cell = np.uint64(place)
        best[cell], chosen[cell] = scores[cell], ZERO
    for colour in range(1, colors):
        row, number = np.uint64(colour) * room, np.float32(colour)
        for place in range(cells):
            cell = np.uint64(place)
            score = scores[row + cell]
            better = score > best[cell]
            best[cell] = score if better else best[cell]
            chosen[cell] = number if better else chosen[cell]


@kernel
def count_near(scores, colors, cells, room, best, spread, near):
    """Count the colours of each cell that noise could lift to the top."""
    for place in range(cells):
        near[np.uint64(place)] = ZERO
    for colour in range(colors):
        row = np.uint64(colour) * room
        for place in range(cells):
            cell = np.uint64(place)
            near[cell] += UNIT if scores[row + cell] >= best[cell] - spread else ZERO


@kernel
def advance(state, after, table, readout, buffers, grid, colors, units, room, bias, spread, noise, where, step, k0, k1):
    """Do one step from ``state`` to ``after``, some rows of cells at a time; return whether it will repeat for ever."""
    hidden, by_unit, scores, best, chosen, near = buffers
    rows_at_once = np.int64(room) // grid
    steady = True
    for first in range(0, grid, rows_at_once):
        rows = min(rows_at_once, grid - first)
        # Lanes beyond the last cell hold what was there before; nobody reads what is made of it.
        cells = np.uint64(-(-rows * grid // LANES) * LANES)
        perceive(state, first, rows, grid, colors, units, table, hidden)
        transpose(hidden, cells, room, by_unit)
        score_colours(by_unit, readout, colors, cells, room, scores)
        if bias != ZERO:
            for cell in range(rows * grid):
                own = state[(first + cell // grid + 1) * (grid + 2) + cell % grid + 1]
                scores[own * np.int64(room) + cell] += bias
        choose(scores, colors, cells, room, best, chosen)
        if spread >= ZERO:
            count_near(scores, colors, cells, room, best, spread, near)
        for cell in range(rows * grid):
            at = (first + cell // grid + 1) * (grid + 2) + cell % grid + 1
            colour = np.int64(chosen[cell])
            if spread >= ZERO and near[cell] > UNIT:
                limit = best[cell] - spread
                number = first * grid + cell
                colour = noisy_colour(scores, cell, np.int64(room), limit, colors, noise, where, step, number, k0, k1)
                steady = False
            after[at] = colour
            steady &= colour == state[at]
    wrap_halo(after, grid)
    return steady


@inlined
def record(state, grid, cells):
    """Copy a state without its halo."""
    for y in range(grid):
        for x in range(grid):
            cells[y * grid + x] = state[(y + 1) * (grid + 2) + x + 1]


@inlined
def encode(cells, grid, patch, colors, patches):
    """Write a frame's patch tokens, int32 (patches,)."""
    side, number = grid // patch, np.uint64(0)
    for top in range(0, side * patch, patch):
        for left in range(0, side * patch, patch):
            token = 0
            for y in range(top + patch - 1, top - 1, -1):
                for x in range(left + patch - 1, left - 1, -1):
                    token = token * colors + cells[np.uint64(y * grid + x)]
            patches[number] = token
            number += ONE
