"""The documents of a text data set: what a language model reads as one text.

A table with a column `text` has one document per row; GSM8K's problems are written out with their answers.
"""

from __future__ import annotations

from pathlib import Path

from components.data import gsm8k, tables
from components.data.errors import DataError, UnknownSplit


def documents(directory: Path, split: str) -> list[str]:
    """Return the documents of one split of a materialised data set.

    Args:
        directory: Directory of the data set.
        split: "train" or another of its splits.

    Raises:
        DataError: The table has no text.
        UnknownSplit: There is no such split.
    """
    frame = tables.read_split(directory, split)
    if "text" in frame.columns:
        return frame["text"].to_list()
    if {"question", "answer"} <= set(frame.columns):
        return gsm8k.documents(frame)
    raise DataError(f"{directory} has the columns {frame.columns}; expected `text`, or `question` and `answer`.")


def training_documents(directory: Path) -> list[str]:
    """Return the documents to train on: the split `train`, or `validation` where the data set holds no other.

    WikiText-2 is such a set here: its training part is not included, so its validation part is trained on, and its test
    part stays held out.
    """
    names = tables.split_names(directory)
    for name in ("train", "validation"):
        if name in names:
            return documents(directory, name)
    raise UnknownSplit(f"{directory} has the splits {names}; expected `train` or `validation` to train on.")
