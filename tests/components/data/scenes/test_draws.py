"""Random integers: functions of their key alone, uniform, and independent of one another."""

from __future__ import annotations

import numpy as np
import pytest

from components.data.scenes.draws import Draws, Purpose

MASK = (1 << 64) - 1


def mixed(value: int) -> int:
    """The finaliser of SplitMix64 in Python's unbounded integers."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def test_the_finaliser_is_that_of_splitmix64():
    # The generator's first outputs for seed 1234567, as in its reference implementation.
    golden, state, outputs = 0x9E3779B97F4A7C15, 1234567, []
    for _ in range(3):
        state = state + golden & MASK
        outputs.append(mixed(state))
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_bits_are_those_of_the_formula_in_unbounded_integers():
    golden = 0x9E3779B97F4A7C15
    draws = Draws.of(5, 2, np.array([0, 7, 1 << 40]))
    found = draws.bits(Purpose.PLACE, 3, 4)
    for row, scene in enumerate((0, 7, 1 << 40)):
        key = 0
        for part in (5, 2, scene):
            key = mixed((key ^ part) + golden & MASK)
        for column in range(4):
            counter = (int(Purpose.PLACE) << 40) + 3 * 65536 + column + 1
            assert int(found[row, column]) == mixed(key + mixed(counter * golden & MASK) & MASK)


def test_a_scenes_draws_do_not_depend_on_the_batch_or_the_number_of_columns():
    whole = Draws.of(1, 0, np.arange(50))
    wide = whole.bits(Purpose.SIZE, 1, 9)
    alone = Draws.of(1, 0, np.array([31])).bits(Purpose.SIZE, 1, 4)
    assert (alone[0] == wide[31, :4]).all()
    assert (whole.at(np.array([31, 2])).bits(Purpose.SIZE, 1, 9) == wide[[31, 2]]).all()


@pytest.mark.parametrize("high", [2, 3, 7, 64])
def test_integers_are_uniform(high):
    drawn = Draws.of(0, 0, np.arange(20000)).integers(high, Purpose.COLOURS, 4)
    counts = np.bincount(drawn.ravel(), minlength=high)
    assert len(counts) == high
    expected = drawn.size / high
    # Chi-square with high - 1 degrees of freedom: mean high - 1, standard deviation sqrt(2 (high - 1)).
    assert ((counts - expected) ** 2 / expected).sum() < high - 1 + 5 * (2 * (high - 1)) ** 0.5


def test_purposes_attempts_seeds_splits_and_neighbouring_scenes_are_uncorrelated():
    scenes = np.arange(20000)

    def column(seed=0, split=0, purpose=Purpose.COUNT, attempt=0, shift=0):
        return Draws.of(seed, split, scenes + shift).bits(purpose, attempt, 1)[:, 0] / 2.0**64

    first = column()
    for other in (
        column(seed=1),
        column(split=1),
        column(purpose=Purpose.GROUND),
        column(attempt=1),
        column(shift=1),
    ):
        assert abs(np.corrcoef(first, other)[0, 1]) < 5 / len(scenes) ** 0.5


def test_a_choice_is_uniform_among_the_options_and_never_another():
    options = np.zeros((30000, 6), bool)
    options[:, [1, 4, 5]] = True
    chosen = Draws.of(0, 0, np.arange(30000)).choice(options, Purpose.OPTION)
    counts = np.bincount(chosen, minlength=6)
    assert counts[[0, 2, 3]].sum() == 0
    assert (abs(counts[[1, 4, 5]] - 10000) < 5 * (10000 * 2 / 3) ** 0.5).all()


def test_orders_are_permutations_and_every_place_is_equally_likely():
    order = Draws.of(0, 0, np.arange(20000)).order(5, Purpose.CELL)
    assert (np.sort(order, 1) == np.arange(5)).all()
    counts = np.stack([np.bincount(order[:, place], minlength=5) for place in range(5)])
    assert (abs(counts - 4000) < 5 * (4000 * 0.8) ** 0.5).all()
