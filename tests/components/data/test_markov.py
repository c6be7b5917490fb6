from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.data.markov import Chain, ChainError, generate, random_binary_chain, read_chain


def strings(chain: Chain, length: int) -> np.ndarray:
    rows = list(product(range(len(chain.alphabet)), repeat=length))
    return np.array(rows, np.uint8).reshape(len(rows), length)


def ternary_chain(order: int) -> Chain:
    rows = np.random.default_rng(5).dirichlet(np.ones(3), size=3**order) * 0.9 + 0.1 / 3
    return Chain("abc", order, rows / rows.sum(1, keepdims=True))


CHAINS = [random_binary_chain(0, 1), random_binary_chain(1, 3), ternary_chain(2)]


def test_an_order_1_chain_has_the_closed_form_stationary_distribution_and_entropy_rate():
    p, q = 0.3, 0.8
    chain = Chain("AB", 1, np.array([[1 - p, p], [q, 1 - q]]))
    assert chain.stationary == pytest.approx([q / (p + q), p / (p + q)], abs=1e-14)
    binary = [-x * np.log(x) - (1 - x) * np.log(1 - x) for x in (p, q)]
    assert chain.entropy_rate() == pytest.approx((q * binary[0] + p * binary[1]) / (p + q), abs=1e-14)


@pytest.mark.parametrize("chain", CHAINS)
def test_string_probabilities_are_one_process_that_no_shift_changes(chain):
    size = len(chain.alphabet)
    for length in range(6):
        probability = np.exp(chain.log_probability(strings(chain, length)))
        longer = np.exp(chain.log_probability(strings(chain, length + 1)))
        assert probability.sum() == pytest.approx(1, abs=1e-12)
        assert longer.reshape(-1, size).sum(1) == pytest.approx(probability, abs=1e-13)
        assert longer.reshape(size, -1).sum(0) == pytest.approx(probability, abs=1e-13)


@pytest.mark.parametrize("chain", CHAINS)
def test_the_entropy_rate_is_the_growth_of_the_block_entropy(chain):
    def block_entropy(length):
        log_probability = chain.log_probability(strings(chain, length))
        return -(np.exp(log_probability) * log_probability).sum()

    growth = block_entropy(chain.order + 2) - block_entropy(chain.order + 1)
    assert chain.entropy_rate() == pytest.approx(growth, abs=1e-12)


@pytest.mark.parametrize("chain", CHAINS)
def test_samples_have_the_frequencies_of_the_chain(chain):
    codes = chain.sample(20_000, 6, np.random.default_rng(0))
    length = min(6, chain.order + 1)
    expected = np.exp(chain.log_probability(strings(chain, length)))
    for window in (codes[:, :length], codes[:, -length:]):
        index = window.astype(int) @ len(chain.alphabet) ** np.arange(length - 1, -1, -1)
        counts = np.bincount(index, minlength=len(expected))
        error = np.sqrt(len(codes) * expected * (1 - expected))
        assert (np.abs(counts - len(codes) * expected) < 5 * error).all()


@pytest.mark.parametrize("chain", CHAINS)
def test_texts_drawn_for_an_end_are_the_chain_given_that_end(chain):
    length, count = 5, 20_000
    state = chain.states[1]
    codes = chain.sample_ending_in(state, count, length, np.random.default_rng(1))
    assert {text[-chain.order :] for text in chain.texts(codes)} == {state}
    everything = strings(chain, length)
    probability = np.exp(chain.log_probability(everything)) * (chain.state_indices(everything) == 1)
    probability /= probability.sum()
    counts = np.bincount(
        codes.astype(int) @ len(chain.alphabet) ** np.arange(length - 1, -1, -1), minlength=len(everything)
    )
    assert (np.abs(counts - count * probability) <= 5 * np.sqrt(count * probability)).all()


def test_equal_generators_give_equal_texts_and_texts_spell_their_codes():
    chain = CHAINS[1]
    draws = [chain.sample(3, 10, np.random.default_rng(7)) for _ in range(2)]
    assert (draws[0] == draws[1]).all()
    assert chain.texts(draws[0])[2] == "".join("AB"[code] for code in draws[0][2])


def test_the_data_set_is_the_same_bytes_every_time_and_holds_a_chain_per_seed(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        generate(tmp_path / name)
    one, two = (tmp_path / name / "chains.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert pl.read_parquet(one)["chain"].unique().sort().to_list() == [0, 1, 2, 3, 4]
    for seed in range(5):
        drawn, read = random_binary_chain(seed, 3), read_chain(tmp_path / "one", seed)
        assert (read.transitions == drawn.transitions).all()
        assert read.states == drawn.states
        assert drawn.transitions.min() >= 0.1
        assert drawn.transitions.max() <= 0.9
    assert not np.allclose(random_binary_chain(0, 3).transitions, random_binary_chain(1, 3).transitions)


def test_a_seed_without_a_chain_is_refused_by_name(tmp_path: Path):
    generate(tmp_path, chains=2)
    with pytest.raises(ChainError, match=r"no chain 2 \(it has \[0, 1\]\)"):
        read_chain(tmp_path, 2)


@pytest.mark.parametrize(
    ("alphabet", "order", "rows"),
    [
        ("BA", 1, [[0.5, 0.5], [0.5, 0.5]]),
        ("AB", 0, [[0.5, 0.5]]),
        ("AB", 1, [[0.5, 0.5]]),
        ("AB", 1, [[1.0, 0.0], [0.5, 0.5]]),
        ("AB", 1, [[0.6, 0.5], [0.5, 0.5]]),
    ],
)
def test_what_is_no_full_support_chain_is_refused(alphabet, order, rows):
    with pytest.raises(ChainError):
        Chain(alphabet, order, np.array(rows))
