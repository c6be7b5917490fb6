import itertools
import math

import numpy as np
import pytest

from components.data.markov import ChainError
from components.data.switching_chain import (
    block_entropy,
    character_entropy,
    dirichlet_chain,
    sample_text,
    switching_chain,
    text_log_probability,
)

SOURCES = [
    switching_chain(1, 0.8, 0.8),
    switching_chain(2, 0.8, 0.6),
    switching_chain(4, 0.3, 0.9),
    dirichlet_chain(0, 3, 0.05),
    dirichlet_chain(1, 2, 0.02, "abc"),
]


def binary_entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize(("p", "q"), [(0.8, 0.8), (0.3, 0.9)])
def test_entropy_rate_and_character_entropy_are_the_closed_forms(order, p, q):
    chain = switching_chain(order, p, q)
    pi = np.array([q, p]) / (p + q)
    assert chain.character_frequencies == pytest.approx(pi)
    assert chain.entropy_rate() == pytest.approx(pi[0] * binary_entropy(p) + pi[1] * binary_entropy(q))
    assert character_entropy(chain) == pytest.approx(binary_entropy(p / (p + q)))


def test_the_next_character_depends_on_the_one_k_places_back_only():
    chain = switching_chain(3, 0.8, 0.7)
    for state, row in zip(chain.states, chain.transitions, strict=True):
        assert row.tolist() == pytest.approx([0.2, 0.8] if state[0] == "0" else [0.7, 0.3])


@pytest.mark.parametrize("chain", SOURCES)
def test_block_entropies_are_those_of_all_blocks_enumerated(chain):
    for length in range(1, 7):
        blocks = np.array(list(itertools.product(range(len(chain.alphabet)), repeat=length)))
        logs = chain.log_probability(blocks)
        assert block_entropy(chain, length) == pytest.approx(-(np.exp(logs) * logs).sum(), abs=1e-10)
    assert block_entropy(chain, 1) == pytest.approx(character_entropy(chain))


@pytest.mark.parametrize("chain", SOURCES)
def test_a_long_text_has_the_conditional_entropy_of_its_chain(chain):
    """The plug-in conditional entropy of 1e6 characters lies within 3 standard errors of the entropy rate."""
    length, size = 1_000_000 if chain is SOURCES[0] else 200_000, len(chain.alphabet)
    codes = sample_text(chain, length, np.random.default_rng(0))
    assert codes.shape == (length,)
    assert codes.dtype == np.uint8
    state = np.zeros(length - chain.order, np.int64)
    for offset in range(chain.order):
        state = state * size + codes[offset : length - chain.order + offset]
    counts = np.bincount(state * size + codes[chain.order :], minlength=chain.transitions.size)
    counts = counts.reshape(chain.transitions.shape)
    rows = counts / counts.sum(1, keepdims=True)
    plug_in = -(counts * np.log(rows)).sum() / counts.sum()
    surprisal = -np.log(chain.transitions)
    mean, square = (counts * surprisal).sum() / counts.sum(), (counts * surprisal**2).sum() / counts.sum()
    error = math.sqrt((square - mean**2) / length)
    assert abs(plug_in - chain.entropy_rate()) < 3 * error
    assert np.abs(rows - chain.transitions).max() < 0.02


def test_stretches_of_a_text_follow_one_another_as_single_steps_do(monkeypatch):
    # In stretches this short the state at the end still depends on the one at the beginning.
    monkeypatch.setattr("components.data.switching_chain._STRETCH", 3)
    chain = switching_chain(2, 0.99, 0.99)
    codes = sample_text(chain, 50_000, np.random.default_rng(1))
    switches = codes[2:] != codes[:-2]
    for place in range(3):
        assert switches[place::3].mean() == pytest.approx(0.99, abs=0.005)


def test_equal_generators_give_equal_texts_of_any_length():
    chain = switching_chain(2, 0.8, 0.8)
    for length in (2, 3, 1999, 2002, 4321):
        one, two = (sample_text(chain, length, np.random.default_rng(5)) for _ in range(2))
        assert len(one) == length
        assert np.array_equal(one, two)


@pytest.mark.parametrize("chain", SOURCES)
def test_the_probability_of_a_text_is_that_of_its_string_and_loses_the_entropy_rate(chain):
    codes = sample_text(chain, 100_000, np.random.default_rng(2))
    for length in (chain.order, 7, 300):
        expected = chain.log_probability(codes[None, :length])[0]
        assert text_log_probability(chain, codes[:length]) == pytest.approx(expected)
    oracle = -text_log_probability(chain, codes) / len(codes)
    assert oracle == pytest.approx(chain.entropy_rate(), abs=3 * 0.6 / math.sqrt(len(codes)))
    with pytest.raises(ChainError, match="no state"):
        text_log_probability(chain, codes[: chain.order - 1])


def test_a_floor_keeps_every_probability_above_it():
    chain = dirichlet_chain(3, 4, 0.1)
    assert chain.transitions.min() >= 0.1
    assert np.array_equal(chain.transitions, dirichlet_chain(3, 4, 0.1).transitions)


def test_sources_that_do_not_exist_are_refused():
    with pytest.raises(ChainError, match="between 0 and 1"):
        switching_chain(1, 1.0, 0.5)
    with pytest.raises(ChainError, match="less than 1 / 2"):
        dirichlet_chain(0, 1, 0.5)
    with pytest.raises(ChainError, match="no state"):
        sample_text(switching_chain(3, 0.5, 0.5), 2, np.random.default_rng(0))
    with pytest.raises(ChainError, match="0 characters"):
        block_entropy(switching_chain(3, 0.5, 0.5), 0)
