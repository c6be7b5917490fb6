"""The bigram model: a law for every context, the formula by hand, and near the entropy of a known source."""

import itertools

import numpy as np
import pytest

from components.language.kneser_ney import KneserNeyBigram, KneserNeyError


def test_every_context_has_a_law_and_nothing_is_impossible():
    model = KneserNeyBigram([[0, 1, 0], [2, 2, 1]], 5)
    np.testing.assert_allclose(model.law().sum(1), 1)
    assert (model.law() > 0).all()


def test_the_formula_by_hand():
    # Pairs, 2 being the end mark: 2-0 twice, and 0-1, 1-2, 0-2 once.
    model = KneserNeyBigram([[0, 1], [0]], 2)
    counts = {(2, 0): 2, (0, 1): 1, (1, 2): 1, (0, 2): 1}
    once, twice = 3, 1
    discount = once / (once + 2 * twice)
    before = {0: 1, 1: 1, 2: 2}
    lower = {w: (n - discount) / 4 + discount * 3 / 4 / 3 for w, n in before.items()}
    expected = (counts[0, 1] - discount) / 2 + discount * 2 / 2 * lower[1]
    assert model.law()[0, 1] == pytest.approx(expected)
    assert model.bits([0, 1]) == pytest.approx(-np.log2([model.law()[2, 0], expected, model.law()[1, 2]]).sum())


def test_it_comes_near_the_entropy_of_a_chain():
    draws = np.random.default_rng(0)
    chain = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])

    def drawn(length: int) -> list[int]:
        states = [0]
        for _ in range(length - 1):
            states.append(int(draws.choice(3, p=chain[states[-1]])))
        return states

    model, test = KneserNeyBigram([drawn(5_000)], 3), drawn(5_000)
    true = -sum(np.log2(chain[one, other]) for one, other in itertools.pairwise(test))
    assert model.bits(test) == pytest.approx(true, rel=0.01)


def test_symbols_outside_and_no_text_are_refused():
    with pytest.raises(KneserNeyError, match="symbol 7"):
        KneserNeyBigram([[0, 7]], 3)
    with pytest.raises(KneserNeyError, match="no training"):
        KneserNeyBigram([], 3)
