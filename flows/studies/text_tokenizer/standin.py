"""Tiny stand-ins with the schemas of the study's data sets, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from components.errors import TesseraError
from components.metrics.tables import write_parquet
from flows.studies.text_tokenizer.sources import TEXT_FILE

_SENTENCE = "the tower was built in the north of the town , and its bells were heard on the other side of the <unk> ."


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name != "wikitext2":
        raise TesseraError(f"{name!r} is no data set of the text-tokenizer study; expected wikitext2.")
    generator = np.random.default_rng(0)
    lines = [[" ".join(generator.choice(_SENTENCE.split(), size=12)) for _ in range(60)] for _ in range(2)]
    frame = pl.DataFrame({"split": ["test", "validation"], "text": ["\n".join(part) + "\n" for part in lines]})
    write_parquet(frame, directory / TEXT_FILE)
    meta = {
        "name": name,
        "tables": {TEXT_FILE: {"bytes": (directory / TEXT_FILE).stat().st_size}},
        "splits": {"by": "column", "column": "split", "names": ["validation", "test"]},
    }
    (directory / "meta.json").write_text(json.dumps(meta))
