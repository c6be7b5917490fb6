"""A stand-in for speech: every phoneme is a tone, every word a few of them, every speaker a pitch and a timbre."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet
from components.data.speech import FILE, SAMPLE_RATE, SCHEMA

WORDS = {"one": "wan", "two": "tuu", "six": "siks", "nine": "nain"}
_TONES = {symbol: 300 + 250 * place for place, symbol in enumerate(sorted(set("".join(WORDS.values()))))}
_SPEAKERS = ("ann", "bob", "eve", "fay", "cat", "dan")
_PHONEME = 720  # samples, 90 ms
_GAP = 160


def rows(split: str, count: int, speakers: tuple[str, ...], seed: int) -> list[tuple]:
    """Return rows of the schema of speech: one to three words by speakers who take turns."""
    draws = np.random.default_rng(seed)
    found = []
    for number in range(count):
        speaker = speakers[number % len(speakers)]
        place = _SPEAKERS.index(speaker)
        words = [str(word) for word in draws.choice(list(WORDS), size=draws.integers(1, 4))]
        samples, spans, phonemes = np.zeros(_GAP), [], []
        for word in words:
            start = len(samples)
            for symbol in WORDS[word]:
                time = np.arange(_PHONEME) / SAMPLE_RATE
                tone = np.sin(2 * np.pi * _TONES[symbol] * (1 + 0.02 * place) * time)
                tone += 0.4 * np.sin(2 * np.pi * (2_600 + 200 * place) * time)
                phonemes.append({"symbol": symbol, "start": len(samples), "end": len(samples) + _PHONEME})
                samples = np.concatenate([samples, 4_000 * tone * np.hanning(_PHONEME)])
            spans.append({"word": word, "start": start, "end": len(samples)})
            samples = np.concatenate([samples, np.zeros(_GAP)])
        samples += draws.standard_normal(len(samples)) * 20
        name = f"{split}/{number:05}"
        found.append((name, split, speaker, " ".join(words), samples.astype(np.int16), spans, phonemes, []))
    return found


def write(directory: Path, counts: dict[str, int], speakers: dict[str, tuple[str, ...]], seed: int = 0) -> None:
    """Write a data set with so many utterances of each split, by the speakers of the split."""
    directory.mkdir(parents=True, exist_ok=True)
    content = [
        row
        for place, (split, count) in enumerate(counts.items())
        for row in rows(split, count, speakers[split], seed + place)
    ]
    parquet.write(pl.DataFrame(content, schema=SCHEMA, orient="row"), directory / FILE)
    rule = {"by": "column", "column": "split", "names": list(counts)}
    tables = {FILE: {"bytes": (directory / FILE).stat().st_size}}
    meta = {"name": directory.name, "splits": rule, "tables": tables}
    (directory / "meta.json").write_text(json.dumps(meta))


def make_all(root: Path, count: int = 12) -> dict[str, Path]:
    """Write stand-ins of both data sets of speech; return them as inputs of a stage."""
    known, held = ("ann", "bob"), ("cat", "dan")
    digits, sentences = root / "fsdd-connected", root / "espeak-sent"
    splits = {"train": count, "dev": 2, "test": 6}
    write(digits, splits, dict.fromkeys(splits, known), seed=1)
    splits = splits | {"held_out": 4}
    write(sentences, splits, dict.fromkeys(splits, ("eve", "fay")) | {"held_out": held}, seed=10)
    return {"data/fsdd-connected": digits, "data/espeak-sent": sentences}
