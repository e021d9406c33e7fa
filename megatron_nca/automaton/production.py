# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
"""The compiled engine's only entry: whole candidates and whole trajectories, without a return to Python.

A candidate is a rule, its probe, the probe's compressed size and a verdict. Frames are compressed as they are made, and a
probe ends as soon as its size cannot come to lie in the band any more. One entry means one compilation, and one call for all
candidates of a trajectory.

Python gets its turn after a fraction of a second's work, wherever that ends, so that a signal is heard: what is not finished is
kept in ``progress`` and the working arrays, and the next call goes on there.
"""

from __future__ import annotations

import numpy as np

from megatron_nca.automaton.complexity import PROBE_FRAMES
from megatron_nca.automaton.deflate import begin, bounds, finish, parse
from megatron_nca.automaton.jit import entry, inlined
from megatron_nca.automaton.kernels import (
    CELLS_AT_ONCE,
    LANES,
    address,
    advance,
    encode,
    initial_state,
    record,
    sample_rule,
)
from megatron_nca.automaton.philox import MAX_ATTEMPTS, Purpose
from megatron_nca.automaton.rule import HIDDEN
from megatron_nca.automaton.tables import DRAW_VALUES

JUDGE, SEARCH, PROBES, GRIDS, TOKENS = range(5)
"""Tasks: is a candidate in the band; the first candidate that is; frames of probes; frames; tokens of trajectories."""

GRID, COLORS, PATCH, BURN_IN, DT, UNITS, BIAS, SPREAD, KEY0, KEY1, LEAST, MOST, COST, BUDGET, SETTINGS = range(15)
"""Words of the settings. LEAST and MOST are sizes of a gzip stream; COST is of a step, out of the BUDGET of one call."""

ITEM, BEGUN, STEP, FRAME, STEADY, SIDE, PROGRESS = range(7)
"""Words of what is not finished: the batch's item, whether it has an initial state, its steps and frames, whether it has come
to rest, and which of two states is the present one."""

UNFINISHED, FINISHED, EXHAUSTED = range(3)
"""What a call comes back with. Exhausted: no candidate of an item lies in the band."""

GZIP_BEYOND_ZLIB = 12
LINK_COST = 4
"""Cost of following one hash link in deflating, in about nanoseconds of the budget."""


@entry
def produce(
    task, numbers, settings, tables, progress, states, draws, bounds_of_colours, floats, data, patches, packer, grids, tokens
):
    """Do a task for a batch.

    Args:
        task: Which.
        numbers: int64 (3, batch): rules, their attempts, trajectories. A search leaves the attempts it found.
        settings: int64 (SETTINGS,).
        tables: int32 (3 * 65536,): weights, odds, noise.
        progress: int64 (PROGRESS,), zero before the first call.
        states: uint8 (3, (grid + 2)**2): two states and a frame.
        draws: uint16, room for a rule's.
        bounds_of_colours: uint64 (colors,).
        floats: float32, room for ``rooms_of``.
        data: uint8, a probe's bytes and eight more.
        patches: int32 (patches of a frame,).
        packer: Arrays of ``deflate.parser``.
        grids: uint8 (batch, frames, grid * grid), where frames are wanted.
        tokens: int32 (batch, length), where tokens are wanted; (batch, 1) for verdicts.

    Returns:
        FINISHED, EXHAUSTED, or UNFINISHED, to be called again.
    """
    judging = task in (JUDGE, SEARCH)
    probing = judging or task == PROBES
    k0, k1 = np.uint64(settings[KEY0]), np.uint64(settings[KEY1])
    grid, colors = settings[GRID], settings[COLORS]
    frames = frames_of(task, settings, grids, tokens)
    table, readout, buffers = rooms_of(floats, grid, colors)
    weights, odds = tables[:DRAW_VALUES], tables[DRAW_VALUES : 2 * DRAW_VALUES]
    logits, cells, noise = (
        (np.int64(Purpose.PROBE_LOGITS), np.int64(Purpose.PROBE_CELLS), np.int64(Purpose.PROBE_NOISE))
        if probing
        else (np.int64(Purpose.LOGITS), np.int64(Purpose.CELLS), np.int64(Purpose.NOISE))
    )
    budget = settings[BUDGET]
    while progress[ITEM] < numbers.shape[1]:
        item = progress[ITEM]
        rule, attempt = numbers[0, item], numbers[1, item]
        index, draw = (rule, attempt) if probing else (numbers[2, item], 0)
        sample_rule(rule, attempt, colors, k0, k1, weights, draws, table, readout)
        if not progress[BEGUN]:
            progress[BEGUN], progress[STEP], progress[FRAME], progress[STEADY], progress[SIDE] = 1, 0, 0, 0, 0
            initial_state(index, draw, logits, cells, grid, colors, k0, k1, odds, draws, bounds_of_colours, states[0])
            if judging:
                begin(len(data) - 8, packer)
        where = address(noise, index, draw)
        budget, accepted = roll_out(
            task, item, frames, where, budget, settings, tables, progress, states, table, readout, buffers, data, patches,
            packer, grids, tokens,
        )  # fmt: skip
        if budget < 1:
            return UNFINISHED
        progress[BEGUN] = 0
        if task == JUDGE:
            tokens[item, 0] = accepted
        if task == SEARCH and not accepted:
            numbers[1, item] += 1
            if numbers[1, item] == MAX_ATTEMPTS:
                return EXHAUSTED
        else:
            progress[ITEM] += 1
    return FINISHED


@inlined
def frames_of(task, settings, grids, tokens):
    """Frames of a trajectory of a task."""
    if task in (GRIDS, PROBES):
        return grids.shape[1]
    if task == TOKENS:
        side = settings[GRID] // settings[PATCH]
        return -(-tokens.shape[1] // (side * side + 2))
    return PROBE_FRAMES


@inlined
def rooms_of(floats, grid, colors):
    """Part one array into a rule's table and readout, and the buffers of a step."""
    lanes = lanes_of(grid)
    table, floats = floats[: 9 * colors * HIDDEN], floats[9 * colors * HIDDEN :]
    readout, floats = floats[: colors * HIDDEN], floats[colors * HIDDEN :]
    hidden, floats = floats[: lanes * HIDDEN], floats[lanes * HIDDEN :]
    by_unit, floats = floats[: lanes * HIDDEN], floats[lanes * HIDDEN :]
    scores, floats = floats[: lanes * colors], floats[lanes * colors :]
    best, chosen, near = floats[:lanes], floats[lanes : 2 * lanes], floats[2 * lanes : 3 * lanes]
    return table, readout, (hidden, by_unit, scores, best, chosen, near)


@inlined
def lanes_of(grid):
    """Cells of the rows that are worked on at once, in whole lanes."""
    return -(-(max(CELLS_AT_ONCE // grid, 1) * grid) // LANES) * LANES


@inlined
def roll_out(
    task, item, frames, where, budget, settings, tables, progress, states, table, readout, buffers, data, patches, packer,
    grids, tokens,
):  # fmt: skip
    """Go on with one trajectory or probe.

    Returns:
        (budget left, verdict): below 1 the trajectory may be unfinished; the verdict is of a probe.
    """
    grid, colors, patch = settings[GRID], settings[COLORS], settings[PATCH]
    # Known at run time only: a loop of a constant sixteen would be unrolled and not vectorised.
    units, room = np.uint64(settings[UNITS]), np.uint64(lanes_of(grid))
    bias, spread = np.float32(settings[BIAS]), np.float32(settings[SPREAD])
    k0, k1 = np.uint64(settings[KEY0]), np.uint64(settings[KEY1])
    noise, cells = tables[2 * DRAW_VALUES :], states[2]
    cost = settings[COST]
    step, steady, side = progress[STEP], progress[STEADY] != 0, progress[SIDE]
    state, after = states[side], states[1 - side]
    judging = task in (JUDGE, SEARCH)
    verdict = -1
    while True:
        if judging:
            budget, verdict = judge(progress[FRAME], budget, settings, data, len(patches), packer)
        if budget < 1 or verdict >= 0 or progress[FRAME] == frames:
            break
        while step < settings[BURN_IN] + progress[FRAME] * settings[DT] and not steady and budget > 0:
            steady = advance(
                state, after, table, readout, buffers, grid, colors, units, room, bias, spread, noise, where, step, k0, k1
            )  # fmt: skip
            state, after = after, state
            side = 1 - side
            step += 1
            budget -= cost
        if budget < 1:
            break
        record(state, grid, cells)
        budget -= grid * grid
        write_frame(task, item, progress[FRAME], cells, grid, patch, colors, patches, data, grids, tokens)
        progress[FRAME] += 1
    progress[STEP], progress[STEADY], progress[SIDE] = step, steady, side
    return budget, verdict == 1


@inlined
def write_frame(task, item, frame, cells, grid, patch, colors, patches, data, grids, tokens):
    """Put a frame where the task wants it."""
    if task in (GRIDS, PROBES):
        for cell in range(grid * grid):
            grids[item, frame, cell] = cells[cell]
        return
    encode(cells, grid, patch, colors, patches)
    if task != TOKENS:
        at = frame * len(patches) * 4
        for number in range(len(patches)):
            token = patches[number]
            for byte in range(4):
                data[at + 4 * number + byte] = (token >> (8 * byte)) & 255
        return
    at, length = frame * (len(patches) + 2), tokens.shape[1]
    opening = np.int32(colors ** (patch * patch))
    tokens[item, at] = opening
    count = min(len(patches), length - at - 1)
    for number in range(count):
        tokens[item, at + 1 + number] = patches[number]
    if at + 1 + len(patches) < length:
        tokens[item, at + 1 + len(patches)] = opening + 1


@inlined
def judge(frames, budget, settings, data, patches, packer):
    """Compress the frames of a probe that are there.

    Returns:
        (budget left, verdict): 1 in the band, 0 not, -1 not known yet.
    """
    total, available = len(data) - 8, frames * patches * 4
    least, most = settings[LEAST] - GZIP_BEYOND_ZLIB, settings[MOST] - GZIP_BEYOND_ZLIB
    # What is there cannot compress to more than the band allows before it is longer than that.
    if available < total and available <= most:
        return budget, -1
    budget = parse(data, total, available, budget // LINK_COST, packer) * LINK_COST
    if budget < 1:
        return budget, -1
    low, high = bounds(packer)
    if low > most:
        return budget, 0
    if available < total:
        return budget, -1
    if high < least:
        return budget, 0
    if low >= least and high <= most:
        return budget, 1
    size = finish(data, total, packer)
    return budget, np.int64(least <= size <= most)
