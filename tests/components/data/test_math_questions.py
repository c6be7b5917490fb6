"""The generated questions: their answers by another way, and what the splits may not share."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from components.data import math_questions
from components.data.math_questions import CATEGORIES, FILE, LONGEST, MathQuestionsError, generate, held_out
from components.tokenizers.text.numeric import ALPHABET

UNITS = {"10": 10, "ten": 10, "100": 100, "hundred": 100, "1000": 1000, "thousand": 1000}
_UNIT, _NUMBER = f"(?P<unit>{'|'.join(UNITS)})", r"(?P<number>\d+)"
ROUNDING = (rf"to nearest {_UNIT}: {_NUMBER}\.", rf"nearest {_UNIT} to {_NUMBER}\?", rf"round {_NUMBER} to {_UNIT}s\.")
SIZES = {"add_sub": 1500, "div": 1500, "round_number": 1500, "place_value": 1500}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pl.DataFrame:
    directory = tmp_path_factory.mktemp("questions")
    generate(directory, train=SIZES, test=400, seed=0)
    return pl.read_parquet(directory / FILE)


def problem(category: str, question: str) -> tuple:
    """What a question asks, whatever its wording: read from the text alone."""
    numbers = tuple(map(int, re.findall(r"-?\d+", re.sub(r"(?<=\d) - ", " minus ", question))))
    if category == "add_sub":
        words = question.replace("minus", " - ").replace(" and ", " + ")
        signs = re.findall(r"(?<=[\d)]) +([+-]) +(?=[\d(-])", re.sub(r"  +", " ", words))
        return numbers, tuple(signs)
    if category == "div":
        return numbers
    if category == "place_value":
        return numbers, re.search("ones|tens|hundreds|thousands", question)[0]
    found = [pattern for pattern in ROUNDING if (match := re.fullmatch(pattern, question))]
    assert len(found) == 1, question
    match = re.fullmatch(found[0], question)
    return int(match["number"]), UNITS[match["unit"]]


def answer(category: str, asked: tuple) -> int:
    if category == "add_sub":
        numbers, signs = asked
        total = numbers[0]
        for sign, number in zip(signs, numbers[1:], strict=True):
            total += number if sign == "+" else -number
        return total
    if category == "div":
        return int(asked[0] // asked[1])
    if category == "place_value":
        (number,), place = asked
        return int(str(number)[::-1][["ones", "tens", "hundreds", "thousands"].index(place)])
    number, unit = asked
    down = number - number % unit
    return down + unit if number % unit >= unit / 2 else down


@pytest.mark.parametrize("category", CATEGORIES)
def test_answers_are_right_read_from_the_text_alone(table, category):
    rows = table.filter(pl.col("category") == category)
    for row in rows.iter_rows(named=True):
        expected = answer(category, problem(category, row["question"]))
        assert row["value"] == expected, row
        assert row["answer"] == str(expected)


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_problem_of_a_test_split_is_in_training_in_any_wording(table, category):
    asked = {
        split: {problem(category, question) for question in part["question"]}
        for (split,), part in table.filter(pl.col("category") == category).group_by("split")
    }
    assert not asked["train"] & asked["interpolation"]
    assert not asked["train"] & asked["extrapolation"]
    assert len(asked["interpolation"]) == len(asked["extrapolation"]) == 400


def test_every_question_can_be_written_in_the_alphabet_and_is_short(table):
    assert set("".join(table["question"])) <= set(ALPHABET)
    assert table["question"].str.len_chars().max() <= LONGEST
    lengths = table.group_by("split", "category").agg(pl.col("answer").str.len_chars().max())
    assert lengths.filter(pl.col("split") != "extrapolation")["answer"].max() <= 4
    assert lengths["answer"].max() == 5
    assert table["item"].to_list() == list(range(len(table)))


def test_operands_are_those_that_the_module_promises(table):
    asked = table.filter(pl.col("split") != "extrapolation", pl.col("category") == "div")
    numbers = np.array([problem("div", question) for question in asked["question"]])
    assert (numbers.min(0)[1], numbers.max(0)[1]) == (2, 20)
    assert 10 <= numbers.min(0)[0] < 20
    assert 990 < numbers.max(0)[0] < 1000
    sums = table.filter(pl.col("split") == "extrapolation", pl.col("category") == "add_sub")
    assert {len(problem("add_sub", question)[0]) for question in sums["question"]} == {3}
    negative = table.filter(pl.col("category") == "add_sub", pl.col("question").str.contains("(-", literal=True))
    assert 0.01 < len(negative) / 2300 < 0.15
    digits = table.filter(pl.col("category") == "round_number", pl.col("split") == "extrapolation")["question"]
    assert all(len(str(problem("round_number", question)[0])) == 5 for question in digits)


def test_every_wording_occurs(table):
    shapes = table.filter(pl.col("split") == "train").select(
        "category", pl.col("question").str.replace_all(r"\(?-?\d+\)?", "N").alias("shape")
    )
    counted = shapes.group_by("category").agg(pl.col("shape").n_unique())
    assert all(count >= 4 for _, count in counted.rows())


def test_equal_arguments_give_equal_bytes_and_another_seed_other_questions(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        generate(tmp_path / name, train={"div": 50, "add_sub": 20}, test=10, seed=seed)
    one, two, other = ((tmp_path / name / FILE).read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def test_one_problem_in_eight_is_held_out():
    assert held_out(np.arange(100_000)).mean() == pytest.approx(1 / 8, abs=0.005)
    assert held_out(np.arange(10)).tolist() == held_out(np.arange(10)).tolist()


def test_impossible_requests_are_refused(tmp_path):
    with pytest.raises(MathQuestionsError, match="unknown categories"):
        generate(tmp_path, train={"algebra": 3}, test=1, seed=0)
    with pytest.raises(MathQuestionsError, match="fewer than 3000 different problems"):
        math_questions.questions("div", "interpolation", 3000, 0)


def test_no_question_of_the_declared_data_set_is_in_two_splits():
    declared = yaml.safe_load((Path(__file__).parents[3] / "params" / "data.yaml").read_text())["math-questions"]
    parameters = declared["sources"][0]["parameters"]
    seed, test = parameters["seed"], parameters["test"]
    for category, count in parameters["train"].items():
        train = math_questions.questions(category, "train", count, seed)
        for split in ("interpolation", "extrapolation"):
            found = math_questions.questions(category, split, test, seed)["question"]
            assert found.n_unique() == test
            assert not set(found) & set(train["question"])
