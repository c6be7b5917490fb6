"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from components.data import espeak_phrases, parquet
from flows.studies.audio_tokenizer import standin as audio

_PHONEMES = ("a", "'a", "b", "k", "s")


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name != "espeak-phrases":
        audio.make(name, directory)
        return
    draws = np.random.default_rng(0)
    rows = []
    for split, count in {"train": 12, "dev": 2, "test": 6}.items():
        for number in range(count):
            said = draws.integers(len(_PHONEMES), size=4)
            phonemes = [_PHONEMES[place] for place in said]
            phonemes.insert(2, "|")
            text = "".join("abks"[place % 4] for place in said)
            rows.append((f"{split}/{number:05}", split, text, phonemes))
    parquet.write(pl.DataFrame(rows, schema=espeak_phrases.SCHEMA, orient="row"), directory / espeak_phrases.FILE)
    rule = {"by": "column", "column": "split", "names": ["train", "dev", "test"]}
    tables = {espeak_phrases.FILE: {"bytes": (directory / espeak_phrases.FILE).stat().st_size}}
    meta = {"name": name, "splits": rule, "tables": tables}
    (directory / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def make_base(name: str, directory: Path) -> None:
    """Write an untrained, tiny base of the right kind into an existing directory.

    Raises:
        TesseraError: The study uses no such base.
    """
    audio.make_base(name, directory)
