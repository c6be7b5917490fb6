import numpy as np
import pytest

from components.analysis.zipf import (
    RankLawError,
    curvature,
    fit_rank_laws,
    rank_frequencies,
    winner,
    yule_simon_counts,
    yule_simon_rho,
)


def draws(shares, count, seed=0):
    return np.random.default_rng(seed).multinomial(count, shares)


def zipf_shares(size, exponent, shift=0.0):
    weights = (np.arange(1, size + 1) + shift) ** -exponent
    return weights / weights.sum()


@pytest.mark.parametrize("size", [512, 20_000])
def test_the_exponent_of_a_million_draws_from_zipf_1_2_is_recovered(size):
    counts = draws(zipf_shares(size, 1.2), 10**6)
    assert fit_rank_laws(counts, least_count=10)["zipf"].exponent == pytest.approx(1.2, abs=0.02)


def test_the_order_of_types_and_types_that_never_occur_do_not_matter():
    counts = draws(zipf_shares(100, 1.0), 10**5)
    shuffled = np.random.default_rng(1).permutation(np.concatenate([counts, np.zeros(50, int)]))
    assert fit_rank_laws(counts) == fit_rank_laws(shuffled)


def test_a_shift_is_recovered_and_its_law_wins_by_bic():
    laws = fit_rank_laws(draws(zipf_shares(2000, 1.5, shift=12.0), 10**6), least_count=10)
    assert laws["zipf_mandelbrot"].shift == pytest.approx(12, rel=0.1)
    assert laws["zipf_mandelbrot"].exponent == pytest.approx(1.5, abs=0.03)
    assert winner(laws) == "zipf_mandelbrot"
    assert laws["zipf_mandelbrot"].ks < laws["zipf"].ks


def test_zipf_wins_over_the_law_with_one_more_parameter_where_it_is_true():
    laws = fit_rank_laws(draws(zipf_shares(512, 1.2), 10**6))
    assert winner(laws) == "zipf"
    assert laws["zipf_mandelbrot"].log_likelihood >= laws["zipf"].log_likelihood - 1


def test_likelihood_and_distance_are_those_of_the_formula():
    counts = np.array([7, 5, 2, 1])
    law = fit_rank_laws(counts)["zipf"]
    shares = zipf_shares(4, law.exponent)
    assert law.log_likelihood == pytest.approx((counts * np.log(shares)).sum())
    assert law.per_type == pytest.approx(law.log_likelihood / 4)
    assert law.ks == pytest.approx(np.abs(shares.cumsum() - counts.cumsum() / 15).max())
    nearby = [(counts * np.log(zipf_shares(4, law.exponent + step))).sum() for step in (-1e-3, 1e-3)]
    assert max(nearby) < law.log_likelihood


@pytest.mark.parametrize("rho", [0.7, 1.5])
def test_rho_of_yule_simon_is_recovered_within_3_percent(rho):
    generator = np.random.default_rng(0)
    # The mixture that defines the law: exponential waiting times, then a geometric count.
    counts = generator.geometric(np.exp(-generator.exponential(1 / rho, 200_000)))
    assert yule_simon_rho(counts) == pytest.approx(rho, rel=0.03)


def test_yule_simon_counts_are_the_quantiles_of_its_tail():
    rho, types = 1.0, 12
    # With rho = 1 the tail is P(count > k) = 1 / (k + 1).
    ranks = np.arange(1, types + 1)
    quantiles = types / (ranks - 0.5) - 1
    found = yule_simon_counts(rho, ranks, np.arange(1, types + 1))
    between = quantiles != quantiles.round()
    assert found[between].tolist() == np.ceil(quantiles[between]).clip(1).tolist()
    assert found[~between] == pytest.approx(quantiles[~between], abs=1)


def test_curvature_is_that_of_a_parabola_and_zero_for_a_power_law():
    ranks = np.arange(1, 4000)
    straight = 1e9 * ranks**-1.0
    assert curvature(straight) == pytest.approx(0, abs=1e-6)
    bent = np.exp(30 - 2 * np.log(ranks) - 0.05 * np.log(ranks) ** 2)
    assert curvature(bent) == pytest.approx(-0.05, abs=1e-6)


def test_too_few_types_are_refused():
    assert rank_frequencies(np.array([0, 3, 9, 1]), least_count=2).tolist() == [9, 3]
    with pytest.raises(RankLawError, match="at least 2"):
        fit_rank_laws(np.array([5, 1, 1]), least_count=2)
