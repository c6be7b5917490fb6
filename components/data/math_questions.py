"""Short arithmetic questions with whole answers, in four categories and varied wording.

    add_sub       -34 + (-57) = -91      two operands of 0..99, some negative and in brackets; harder: three operands
    div           999 / 20 = 49          quotient without remainder of 10..999 by 2..20; harder: 1000..9999
    round_number  3847 to tens = 3850    two to four digits, halves up; harder: five digits
    place_value   tens of 3847 = 4       two to four digits; harder: five digits

Splits: `train`, `interpolation` (problems of the same kind that training never shows in any wording) and
`extrapolation` (one operand or digit more). Every character is one of components.tokenizers.text.numeric's alphabet;
a question has at most LONGEST characters.

The categories are those of that name in the DeepMind mathematics dataset (Saxton et al. 2019, "Analysing Mathematical
Reasoning Abilities of Neural Models"), with operands that a small model can learn in minutes.

Letters: N problems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet
from components.errors import TesseraError

FILE = "questions.parquet"
SPLITS = ("train", "interpolation", "extrapolation")
LONGEST = 30
# One problem in eight is kept from training: enough different ones in the smallest category (18,810 divisions).
_HELD_OUT = 8
_BLOCK = 1 << 12
_ATTEMPTS = 200
_NEGATIVE = 0.05

_ABOUT_AN_EXPRESSION = ("what is {e}?", "calculate {e}.", "work out {e}.", "{e} = ?")
_ABOUT_A_SUM = (*_ABOUT_AN_EXPRESSION, "sum of {a} and {b}?", "add {a} and {b}.")
_ABOUT_A_DIFFERENCE = (*_ABOUT_AN_EXPRESSION, "{a} minus {b}?", "take {a} minus {b}.")
_ABOUT_A_QUOTIENT = ("{a} / {b} = ?", "divide {a} by {b}.", "what is {a} divided by {b}?", "whole part of {a} / {b}?")
_ABOUT_ROUNDING = ("to nearest {unit}: {a}.", "nearest {unit} to {a}?", "round {a} to {unit}s.")
_ABOUT_A_PLACE = ("{place} digit of {a}?", "{place} of {a}?", "in {a}, {place} digit?")
_UNITS = (("10", "ten"), ("100", "hundred"), ("1000", "thousand"))
_PLACES = ("ones", "tens", "hundreds", "thousands")


class MathQuestionsError(TesseraError):
    """Questions that cannot be made as asked."""


@dataclass(frozen=True)
class Problems:
    """A batch of problems, before they are worded.

    Attributes:
        key: Equal for equal problems, (N,) int64.
        answer: (N,) int64.
        kind: Index into the category's families of wordings, (N,) int64.
        words: What stands for each name in the wordings, (N,) text each.
    """

    key: np.ndarray
    answer: np.ndarray
    kind: np.ndarray
    words: Mapping[str, np.ndarray]

    def rows(self, chosen: np.ndarray) -> Problems:
        """Return some of the problems."""
        words = {name: column[chosen] for name, column in self.words.items()}
        return Problems(self.key[chosen], self.answer[chosen], self.kind[chosen], words)


def _add_sub(generator: np.random.Generator, count: int, harder: bool) -> Problems:
    terms = 3 if harder else 2
    operands = generator.integers(0, 100, (terms, count))
    operands *= np.where(generator.random((terms, count)) < _NEGATIVE, -1, 1)
    minus = generator.random((terms - 1, count)) < 0.5
    answer, key = operands[0].copy(), operands[0] + 99
    spelled = expression = operands[0].astype(str)
    for operand, subtracted in zip(operands[1:], minus, strict=True):
        answer += np.where(subtracted, -operand, operand)
        key = (key * 2 + subtracted) * 199 + operand + 99
        spelled = operand.astype(str)
        enclosed = np.where(operand < 0, _join("(", spelled, ")"), spelled)
        expression = _join(expression, np.where(subtracted, " - ", " + "), enclosed)
    # Sums and differences of two have further wordings, which name the operands.
    kind = np.zeros(count, np.int64) if harder else np.where(minus[0], 2, 1)
    words = {"e": expression, "a": operands[0].astype(str), "b": spelled}
    return Problems(key, answer, kind, words)


def _div(generator: np.random.Generator, count: int, harder: bool) -> Problems:
    dividend = generator.integers(1_000, 10_000, count) if harder else generator.integers(10, 1_000, count)
    divisor = generator.integers(2, 21, count)
    words = {"a": dividend.astype(str), "b": divisor.astype(str)}
    return Problems(dividend * 32 + divisor, dividend // divisor, np.zeros(count, np.int64), words)


def _round_number(generator: np.random.Generator, count: int, harder: bool) -> Problems:
    # 9,499 rounds to 9,000 or 9,500 but never to five digits.
    number = generator.integers(10_000, 95_000, count) if harder else generator.integers(10, 9_500, count)
    unit = generator.integers(0, np.minimum(_digits(number) - 1, 3))
    step = 10 ** (unit + 1)
    spelled = np.array(_UNITS)[unit, generator.integers(0, 2, count)]
    words = {"a": number.astype(str), "unit": spelled}
    return Problems(number * 4 + unit, (number + step // 2) // step * step, np.zeros(count, np.int64), words)


def _place_value(generator: np.random.Generator, count: int, harder: bool) -> Problems:
    number = generator.integers(10_000, 100_000, count) if harder else generator.integers(10, 10_000, count)
    place = generator.integers(0, np.minimum(_digits(number), 4))
    words = {"a": number.astype(str), "place": np.array(_PLACES)[place]}
    return Problems(number * 4 + place, number // 10**place % 10, np.zeros(count, np.int64), words)


def _digits(number: np.ndarray) -> np.ndarray:
    return (number[:, None] >= 10 ** np.arange(6)).sum(1)


def _join(*parts) -> np.ndarray:
    text = parts[0]
    for part in parts[1:]:
        text = np.char.add(text, part)
    return text


@dataclass(frozen=True)
class _Category:
    draw: Callable[[np.random.Generator, int, bool], Problems]
    wordings: tuple[tuple[str, ...], ...]


CATEGORIES = {
    "add_sub": _Category(_add_sub, (_ABOUT_AN_EXPRESSION, _ABOUT_A_SUM, _ABOUT_A_DIFFERENCE)),
    "div": _Category(_div, (_ABOUT_A_QUOTIENT,)),
    "round_number": _Category(_round_number, (_ABOUT_ROUNDING,)),
    "place_value": _Category(_place_value, (_ABOUT_A_PLACE,)),
}


def held_out(key: np.ndarray) -> np.ndarray:
    """Tell which problems are kept from training, by a hash of their key (the splitmix64 finaliser)."""
    mixed = key.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(31))) % np.uint64(_HELD_OUT) == 0


def questions(category: str, split: str, count: int, seed: int) -> pl.DataFrame:
    """Make the questions of one category and split.

    Training repeats problems, in one wording or several; the problems of the two test splits are all different.

    Args:
        category: Name in CATEGORIES.
        split: Name in SPLITS.
        count: Number of questions.
        seed: Seed; equal arguments give equal questions.

    Returns:
        Columns category, split, question, answer, value.

    Raises:
        MathQuestionsError: There are not so many different problems.
    """
    made, place = CATEGORIES[category], list(CATEGORIES).index(category)
    generator = np.random.default_rng([seed, place, SPLITS.index(split)])
    parts: list[Problems] = []
    seen = np.zeros(0, np.int64)
    total = 0
    for _ in range(_ATTEMPTS):
        problems = made.draw(generator, _BLOCK, split == "extrapolation")
        if split == "train":
            kept = np.flatnonzero(~held_out(problems.key))
        else:
            _, first = np.unique(problems.key, return_index=True)
            kept = np.sort(first)
            kept = kept[~np.isin(problems.key[kept], seen)]
            if split == "interpolation":
                kept = kept[held_out(problems.key[kept])]
            seen = np.concatenate([seen, problems.key[kept]])
        parts.append(problems.rows(kept[: count - total]))
        total += len(parts[-1].key)
        if total == count:
            break
    else:
        raise MathQuestionsError(f"{category} has fewer than {count} different problems for {split}; ask for fewer.")
    frames = [_worded(made, problems, generator) for problems in parts]
    return pl.concat(frames).select(
        pl.lit(category).alias("category"), pl.lit(split).alias("split"), "question", "answer", "value"
    )


def _worded(category: _Category, problems: Problems, generator: np.random.Generator) -> pl.DataFrame:
    """Ask each problem in one of its wordings, drawn at random."""
    frame = pl.DataFrame(
        {
            "row": np.arange(len(problems.key)),
            "value": problems.answer.astype(np.int32),
            **{name: column.astype(object) for name, column in problems.words.items()},
        },
        schema_overrides={name: pl.String for name in problems.words},
    ).with_columns(pl.col("value").cast(pl.String).alias("answer"))
    sizes = np.array([len(family) for family in category.wordings])
    wording = (generator.random(len(problems.key)) * sizes[problems.kind]).astype(np.int64)
    asked = []
    for kind, family in enumerate(category.wordings):
        for index, text in enumerate(family):
            rows = frame.filter(pl.Series((problems.kind == kind) & (wording == index)))
            names = re.findall(r"{(\w+)}", text)
            question = pl.format(re.sub(r"{\w+}", "{}", text), *names).alias("question")
            asked.append(rows.select("row", question, "answer", "value"))
    return pl.concat(asked).sort("row")


def generate(directory: Path, *, train: Mapping[str, int], test: int, seed: int) -> None:
    """Write the data set `math-questions`: `questions.parquet`, one row per question.

    Columns: `item` (number of the row), `category`, `split`, `question`, `answer` (text) and `value` (number).

    Args:
        directory: Existing directory.
        train: Training questions of each category, by its name in CATEGORIES.
        test: Questions of each of these in each of the two test splits.
        seed: Seed; equal arguments give equal bytes.

    Raises:
        MathQuestionsError: A category is unknown, or has not so many different problems.
    """
    if strangers := set(train) - set(CATEGORIES):
        raise MathQuestionsError(f"unknown categories {sorted(strangers)}; expected some of {', '.join(CATEGORIES)}.")
    made = [questions(name, "train", count, seed) for name, count in train.items()]
    made += [questions(name, split, test, seed) for split in SPLITS[1:] for name in train]
    table = pl.concat(made).select(pl.int_range(pl.len(), dtype=pl.Int32).alias("item"), pl.all())
    longest = int(table["question"].str.len_chars().max())
    if longest > LONGEST:
        raise MathQuestionsError(f"a question has {longest} characters; expected at most {LONGEST}.")
    parquet.write(table, directory / FILE)
