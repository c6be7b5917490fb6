"""Tiny stand-ins with the schemas of the study's data sets, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from components.data import markov
from components.errors import TesseraError
from components.metrics.tables import write_parquet
from flows.studies.decoding.sources import TEXT_FILE

_SENTENCE = "the king and queen of all our fair land shall speak no more: Away! Good sir, what news from Rome?"


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name == "markov":
        markov.generate(directory)
    elif name == "tinyshakespeare":
        generator = np.random.default_rng(0)
        lines = [" ".join(generator.choice(_SENTENCE.split(), size=8)) for _ in range(150)]
        write_parquet(pl.DataFrame({"text": ["\n".join(lines) + "\n"]}), directory / TEXT_FILE)
        meta = {
            "name": name,
            "tables": {TEXT_FILE: {"bytes": (directory / TEXT_FILE).stat().st_size}},
            "splits": {"by": "position", "column": "text", "shares": {"train": 0.8, "validation": 0.1, "test": 0.1}},
        }
        (directory / "meta.json").write_text(json.dumps(meta))
    else:
        raise TesseraError(f"{name!r} is no data set of the decoding study; expected markov or tinyshakespeare.")
