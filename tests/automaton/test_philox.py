import numpy as np
import pytest

from megatron_nca.automaton import philox
from megatron_nca.automaton.philox import Purpose, derive_key, philox4x32

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([ONES] * 4, (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, expected):
    """Random123's known answers (kat_vectors, philox4x32 10)."""
    assert " ".join(f"{word:08x}" for word in philox4x32(counter, key)) == expected


def test_each_draw_has_an_address_of_its_own():
    index = np.array([0, 1, 2**32, 2**47])
    seen = [
        tuple(row)
        for purpose in Purpose
        for attempt in (0, 1, 2**15)
        for step in (0, 1)
        for row in philox.words((1, 2), purpose, 2, index, attempt, step).reshape(-1, 4)
    ]
    assert len(set(seen)) == len(seen) == len(Purpose) * 3 * 2 * 4 * 2


def test_a_draw_does_not_depend_on_how_many_are_drawn_with_it():
    many = philox.draws((3, 4), Purpose.NOISE, 21, np.arange(7), step=5)
    assert many.shape == (7, 21)
    np.testing.assert_array_equal(philox.draws((3, 4), Purpose.NOISE, 9, np.array([4]), step=5)[0], many[4, :9])


def test_draws_are_the_halves_of_the_words_low_first():
    word = philox.words((3, 4), Purpose.CELLS, 1, np.array([9]))[0, 1]
    draws = philox.draws((3, 4), Purpose.CELLS, 8, np.array([9]))[0]
    assert int(draws[2]) | int(draws[3]) << 16 == word


def test_keys_of_different_streams_differ():
    assert derive_key("a", 1) == derive_key("a", 1)
    assert len({derive_key("a", 1), derive_key("a", 2), derive_key("b", 1), derive_key("a|1")}) == 3, "parts join with |"
