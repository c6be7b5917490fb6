import numpy as np
import polars as pl
import pytest

from flows.engine.comparison import compare_by_seeds, compare_exactly


def table(values):
    """Build a judge's table from {(arm, metric, at): {seed: value}}."""
    rows = [
        {"arm": arm, "seed": seed, "metric": metric, "at": at, "value": value, "unit": "dB", "samples": 10}
        for (arm, metric, at), seeds in values.items()
        for seed, value in seeds.items()
    ]
    return pl.DataFrame(rows)


def random_table(generator, cells=20, seeds=3, shift=None):
    values = {}
    for cell in range(cells):
        # Metrics of very different scale and spread, as in a real paper.
        mean, spread = 10.0 ** (cell % 5 - 2), 10.0 ** (cell % 7 - 5)
        draws = mean + spread * generator.standard_normal(seeds) + (shift or {}).get(cell, 0.0) * spread
        values[("vq", f"metric{cell}", "")] = dict(enumerate(draws.tolist()))
    return table(values)


CELL = ("vq", "psnr", "k=8")


def test_identical_tables_pass_at_both_levels():
    one = random_table(np.random.default_rng(0))
    for compare in (compare_exactly, compare_by_seeds):
        assert compare(one, one.clone()).outside == ()
        assert compare(one, one.sample(fraction=1.0, shuffle=True, seed=1)).compared == 20


def test_the_last_bit_matters_at_the_exact_level_only():
    one = table({CELL: {0: 1.0, 1: 2.0, 2: 3.0}})
    other = table({CELL: {0: np.nextafter(1.0, 2.0), 1: 2.0, 2: 3.0}})
    (difference,) = compare_exactly(one, other).outside
    assert (difference.arm, difference.metric, difference.at) == CELL
    assert "psnr of vq at k=8" in str(difference)
    assert "1.0000000000000002" in str(difference)
    assert compare_by_seeds(one, other).outside == ()


def test_the_exact_level_sees_hygiene_too():
    one = table({CELL: {0: 1.0, 1: 2.0}})
    (difference,) = compare_exactly(one, one.with_columns(samples=pl.lit(9))).outside
    assert "columns samples" in difference.reason


def test_wall_clocks_are_asked_what_the_seeds_let_one_expect_and_all_else_bit_for_bit():
    clock = ("vq", "seconds", "")
    one = table({CELL: {0: 1.0, 1: 2.0, 2: 3.0}, clock: {0: 1.0, 1: 1.1, 2: 0.9}})
    later = table({CELL: {0: 1.0, 1: 2.0, 2: 3.0}, clock: {0: 1.05, 1: 0.95, 2: 1.0}})
    assert [found.metric for found in compare_exactly(one, later).outside] == ["seconds"]
    found = compare_exactly(one, later, ["seconds"])
    assert found.outside == ()
    assert found.compared == 2
    slower = later.with_columns(pl.when(pl.col("metric") == "seconds").then(90.0).otherwise("value").alias("value"))
    assert [found.metric for found in compare_exactly(one, slower, ["seconds"]).outside] == ["seconds"]
    other = later.with_columns(pl.when(pl.col("metric") == "psnr").then(2.0).otherwise("value").alias("value"))
    assert [found.metric for found in compare_exactly(one, other, ["seconds"]).outside] == ["psnr"]


def test_float_noise_passes_where_seeds_do_not_vary_at_all():
    one = table({CELL: {0: 5.0, 1: 5.0, 2: 5.0}, ("vq", "zero", ""): {0: 0.0, 1: 0.0, 2: 0.0}})
    noisy = one.with_columns(pl.col("value") * (1 + 5e-7))
    assert compare_by_seeds(one, noisy).outside == ()
    wrong = one.with_columns(pl.when(pl.col("metric") == "psnr").then(5.1).otherwise(pl.col("value")).alias("value"))
    assert [found.metric for found in compare_by_seeds(one, wrong).outside] == ["psnr"]


@pytest.mark.parametrize("seeds,cells", [(3, 6), (5, 40)])
def test_one_metric_off_by_ten_standard_deviations_is_named_and_nothing_else(seeds, cells):
    generator = np.random.default_rng(3)
    one = random_table(generator, cells, seeds)
    spread = one.group_by("metric").agg(pl.col("value").std().alias("spread"))
    moved = one.join(spread, on="metric", maintain_order="left").with_columns(
        pl.when(pl.col("metric") == "metric4").then(10 * pl.col("spread")).otherwise(0.0).alias("shift")
    )
    rerun = moved.with_columns(pl.col("value") + pl.col("shift")).drop("shift", "spread")
    (difference,) = compare_by_seeds(one, rerun).outside
    assert difference.metric == "metric4"
    assert set(difference.rerun) == set(range(seeds))


def test_one_wild_seed_among_five_is_found():
    old = {seed: 10.0 + 0.1 * value for seed, value in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0))}
    one = table({CELL: old})
    assert compare_by_seeds(one, table({CELL: old | {2: 12.0}})).outside != ()
    assert compare_by_seeds(one, table({CELL: old | {2: 10.1}})).outside == ()


@pytest.mark.parametrize("seeds,cells", [(3, 8), (3, 60), (5, 25)])
def test_a_faithful_rerun_is_called_different_at_most_twice_in_a_hundred(seeds, cells):
    generator = np.random.default_rng(seeds * cells)
    trials = 300
    alarms = sum(
        bool(compare_by_seeds(random_table(generator, cells, seeds), random_table(generator, cells, seeds)).outside)
        for _ in range(trials)
    )
    assert alarms / trials <= 0.02


def test_the_stated_resolution_is_what_is_noticed_half_of_the_time():
    generator = np.random.default_rng(7)
    trials, found = 200, 0
    for _ in range(trials):
        one = random_table(generator, 10, 5)
        resolution = compare_by_seeds(one, one).resolution
        rerun = random_table(generator, 10, 5, shift={4: resolution})
        found += any(difference.metric == "metric4" for difference in compare_by_seeds(one, rerun).outside)
    assert 0.3 < found / trials < 0.8


def test_metrics_and_seeds_that_are_missing_or_new_are_named():
    one = table({CELL: {0: 1.0, 1: 2.0}, ("vq", "gone", ""): {0: 1.0, 1: 1.5}})
    other = table({CELL: {0: 1.0, 2: 2.0}, ("vq", "new", ""): {0: 1.0, 1: 1.5}})
    for compare in (compare_exactly, compare_by_seeds):
        reasons = {found.metric: found.reason for found in compare(one, other).outside}
        assert reasons == {
            "psnr": "seeds [0, 1] were recorded, the rerun has [0, 2]",
            "gone": "the rerun does not have it",
            "new": "only the rerun has it",
        }


def test_a_difference_at_one_seed_is_left_undecided_not_passed_over():
    found = compare_by_seeds(table({CELL: {0: 1.0}}), table({CELL: {0: 1.1}}))
    assert found.outside == ()
    assert [difference.metric for difference in found.undecided] == ["psnr"]
    assert compare_by_seeds(table({CELL: {0: 1.0}}), table({CELL: {0: 1.0}})).undecided == ()
