"""SemEval pairs of sentences with human similarity, 0 (unrelated) to 5 (equivalent): subsets that may be passed on.

Source: Agirre et al. 2014, 2015, 2016, "SemEval Task: Semantic Textual Similarity".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from components.data import parquet, tables

FILE = "sts.parquet"
_SCHEMA = {
    "score": pl.Float32,
    "sentence1": pl.String,
    "sentence2": pl.String,
    "year": pl.Int16,
    "subset": pl.String,
    "licence": pl.String,
}
# Subsets in the order of the table, with the terms stated beside each.
LICENCES = {
    (2014, "images"): "CC BY-SA (PASCAL VOC-2008 captions)",
    (2015, "answers-forums"): "CC BY-SA 3.0 (Stack Exchange)",
    (2016, "answer-answer"): "CC BY-SA 3.0 (Stack Exchange)",
    (2016, "question-question"): "CC BY-SA 3.0 (Stack Exchange)",
    (2016, "postediting"): "CC BY 4.0 (EAMT11)",
    (2016, "headlines"): "acknowledge on reuse (Europe Media Monitor)",
}


def from_tsv(paths: Mapping[str, Path], directory: Path) -> None:
    """Write one row per scored pair from files `<year>/<subset>.test.tsv` of score, sentence and sentence.

    Pairs without a score, which the task did not judge, are left out; white space around a sentence is stripped.

    Raises:
        KeyError: A subset is missing.
        ValueError: A line has fewer than three fields.
    """
    rows = []
    for (year, subset), licence in LICENCES.items():
        name = f"{year}/{subset}.test.tsv"
        for line in paths[name].read_bytes().decode("utf-8").split("\n"):
            if not line.strip():
                continue
            fields = line.rstrip("\r").split("\t")
            if len(fields) < 3:
                raise ValueError(f"{name}: expected score, sentence and sentence, found {line[:80]!r}")
            if fields[0]:
                rows.append((float(fields[0]), fields[1].strip(), fields[2].strip(), year, subset, licence))
    parquet.write(pl.DataFrame(rows, schema=_SCHEMA, orient="row"), directory / FILE)


def pairs(directory: Path) -> pl.DataFrame:
    """Return all pairs with their scores, in the order of the table."""
    return tables.read(directory, FILE)
