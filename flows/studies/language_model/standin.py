"""Tiny stand-ins with the schemas of the study's data sets, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path

from components.data import diabetes, math_questions, number_tables
from components.errors import TesseraError, did_you_mean


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name not in _MAKERS:
        near = did_you_mean(name, _MAKERS)
        raise TesseraError(
            f"{name!r} is no data set of the language-model study; expected one of {', '.join(_MAKERS)}.{near}"
        )
    _MAKERS[name](directory)


def _math_questions(directory: Path) -> None:
    math_questions.generate(directory, train=dict.fromkeys(math_questions.CATEGORIES, 60), test=10, seed=0)


def _number_tables(directory: Path) -> None:
    number_tables.generate(directory, tables=1, inputs=8, train=60, test=20, deviation=18.0, noise_share=0.2)


def _diabetes(directory: Path) -> None:
    diabetes.read(directory)
    meta = {
        "name": "diabetes",
        "tables": {"diabetes.parquet": {"bytes": (directory / "diabetes.parquet").stat().st_size}},
        "splits": {"by": "hash", "column": "index", "until": None, "shares": {"train": 0.8, "test": 0.2}},
    }
    (directory / "meta.json").write_text(json.dumps(meta))


_MAKERS = {"math-questions": _math_questions, "number-tables": _number_tables, "diabetes": _diabetes}
