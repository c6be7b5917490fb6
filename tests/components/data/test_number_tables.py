import numpy as np
import polars as pl
import pytest

from components.data import diabetes, number_tables
from components.data.number_tables import NumberTablesError, generate, table

SIZES = {"inputs": 8, "train": 20_000, "test": 2_000, "deviation": 18.0, "noise_share": 0.2}


def test_the_target_is_linear_with_a_fifth_of_noise_around_fifty():
    numbers, target, weights = table(3, **SIZES)
    assert numbers.min() == 0
    assert numbers.max() == 99
    left = target - (50 + (numbers - 49.5) @ weights)
    clipped = (target > 0) & (target < 99)
    assert left[clipped].std() == pytest.approx(18 * np.sqrt(0.2), rel=0.03)
    assert target.std() == pytest.approx(18, rel=0.03)
    assert target.mean() == pytest.approx(50, abs=0.5)
    assert clipped.mean() > 0.97
    assert target.std() / left[clipped].std() == pytest.approx(2.2, abs=0.1)


def test_least_squares_finds_the_weights():
    numbers, target, weights = table(1, **SIZES)
    design = np.column_stack([np.ones(len(target)), numbers])
    found, *_ = np.linalg.lstsq(design, target.astype(float), rcond=None)
    assert found[1:] == pytest.approx(weights, abs=0.02)


def test_every_seed_has_a_table_of_its_own_and_equal_arguments_equal_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        generate(tmp_path / name, tables=3, inputs=4, train=30, test=10, deviation=18.0, noise_share=0.2)
    one, two = ((tmp_path / name / number_tables.FILE).read_bytes() for name in ("one", "two"))
    assert one == two
    frame = pl.read_parquet(tmp_path / "one" / number_tables.FILE)
    assert frame.group_by("table", "split", maintain_order=True).len().rows() == [
        (index, split, count) for index in range(3) for split, count in (("train", 30), ("test", 10))
    ]
    first = [part["inputs"].to_list()[0] for _, part in frame.group_by("table", maintain_order=True)]
    assert first[0] != first[1] != first[2]


def test_a_share_of_noise_outside_zero_and_one_is_refused():
    with pytest.raises(NumberTablesError, match="between 0 and 1"):
        table(0, **{**SIZES, "noise_share": 1.0})


def test_the_diabetes_table_is_unscaled(tmp_path):
    diabetes.read(tmp_path)
    frame = pl.read_parquet(tmp_path / "diabetes.parquet")
    assert frame.shape == (442, 3)
    assert (frame["target"].min(), frame["target"].max()) == (25, 346)
    age = frame["features"].to_numpy()[:, 0]
    assert (age.min(), age.max()) == (19, 79)
