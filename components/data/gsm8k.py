"""GSM8K as published (JSON lines) to tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from components.data import parquet

_ANSWER_MARK = "####"


def from_json_lines(paths: Mapping[str, Path], directory: Path) -> None:
    """Write a table per file: `question` and `answer` unchanged, `final` the stripped text behind the answer's mark."""
    for name, path in paths.items():
        frame = pl.read_ndjson(path, schema={"question": pl.String, "answer": pl.String})
        final = pl.col("answer").str.split(_ANSWER_MARK).list.last().str.strip_chars()
        parquet.write(frame.with_columns(final.alias("final")), directory / f"{Path(name).stem}.parquet")


def documents(frame: pl.DataFrame) -> list[str]:
    """Return each problem with its worked answer as one text, as language models are trained on it."""
    rows = frame.select("question", "answer").iter_rows()
    return [f"Question: {question}\nAnswer: {answer}\n" for question, answer in rows]
