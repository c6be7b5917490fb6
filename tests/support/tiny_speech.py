"""Stand-ins of the speech data sets: syllables of tones, a voice per speaker, with the real tables' schema."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet
from components.data.speech import FILE, SAMPLE_RATE, SCHEMA

WORDS = ("one", "two", "three", "four")


def write(directory: Path, splits: dict[str, int], name: str = "fsdd-connected", seed: int = 0) -> Path:
    """Write a data set of utterances of two or three tones each; equal arguments give equal bytes."""
    draws = np.random.default_rng(seed)
    rows = []
    for split, count in splits.items():
        for number in range(count):
            speaker, said = number % 2, draws.integers(len(WORDS), size=draws.integers(2, 4))
            parts, words = [], []
            for word in said:
                length = int(draws.integers(SAMPLE_RATE // 5, SAMPLE_RATE // 3))
                time = np.arange(length) / SAMPLE_RATE
                pitch = (110, 180)[speaker]
                tone = sum(np.sin(2 * np.pi * pitch * k * time) / (1 + (k - 2 - word) ** 2) for k in range(1, 8))
                start = sum(map(len, parts))
                parts.append(6_000 * tone * np.hanning(length))
                words.append({"word": WORDS[word], "start": start, "end": start + length})
            sound = np.concatenate(parts) + draws.normal(0, 20, sum(map(len, parts)))
            text = " ".join(WORDS[word] for word in said)
            sources = [f"{split}{number}_{place}" for place in range(len(said))]
            row = (f"{split}/{number:05}", split, f"speaker{speaker}", text, sound.astype(np.int16), words, [], sources)
            rows.append(row)
    directory.mkdir(parents=True, exist_ok=True)
    parquet.write(pl.DataFrame(rows, schema=SCHEMA, orient="row"), directory / FILE)
    sizes = {"bytes": (directory / FILE).stat().st_size}
    rule = {"by": "column", "column": "split", "names": list(splits)}
    (directory / "meta.json").write_text(json.dumps({"name": name, "tables": {FILE: sizes}, "splits": rule}))
    return directory
