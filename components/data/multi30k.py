"""Multi30k: descriptions of the same pictures in English, German, French and Czech, to one table.

Source: Elliott, Frank, Sima'an, Specia 2016, "Multi30K: Multilingual English-German Image Descriptions".
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from components.data import parquet, tables

FILE = "multi30k.parquet"
LANGUAGES = ("en", "de", "fr", "cs")
SPLITS = ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr")


def from_parallel_texts(paths: Mapping[str, Path], directory: Path) -> None:
    """Write one row per picture from files `<split>.<language>.gz`, of which each line is a description.

    White space around a line is stripped. A language that a split lacks is null there.

    Raises:
        ValueError: A file has another name, or files of one split differ in their number of lines.
    """
    columns: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for name, path in paths.items():
        found = re.fullmatch(r"([a-z0-9_]+)\.([a-z]{2})\.gz", Path(name).name)
        if not found or found[1] not in columns or found[2] not in LANGUAGES:
            raise ValueError(f"{name} is none of <split>.<language>.gz with a split of {SPLITS}")
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
        columns[found[1]][found[2]] = [line.strip() for line in text.removesuffix("\n").split("\n")]
    frames = []
    for split, texts in columns.items():
        counts = {language: len(lines) for language, lines in texts.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"split {split} has {counts} lines; expected equally many in each language")
        (count,) = set(counts.values())
        frame = pl.DataFrame({"split": [split] * count, "index": pl.Series(range(count), dtype=pl.Int32)})
        given = [pl.Series(language, texts.get(language, [None] * count), dtype=pl.String) for language in LANGUAGES]
        frames.append(frame.with_columns(given))
    parquet.write(pl.concat(frames), directory / FILE)


def descriptions(directory: Path, split: str, language: str) -> list[str]:
    """Return the descriptions of a split in one language, in the order of the pictures; none where there is none.

    Args:
        directory: Directory of the data set.
        split: One of SPLITS.
        language: One of LANGUAGES.
    """
    return tables.read_split(directory, split, [language])[language].drop_nulls().to_list()
