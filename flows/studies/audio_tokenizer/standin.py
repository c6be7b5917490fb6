"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from components.bases import construct, save_base, specification
from components.data import esc10, parquet
from components.data.fsdd_connected import DIGITS
from components.data.speech import FILE, SAMPLE_RATE, SCHEMA
from components.errors import TesseraError
from components.speech.judge import CTCJudge, save_judge

_SPEECH = {
    "fsdd-connected": ({"train": 4, "dev": 2, "test": 4}, ("ann", "bob"), DIGITS),
    "fsdd-strings": ({"train": 6, "dev": 2, "test": 4}, ("ann", "bob"), DIGITS),
    "espeak-sent": ({"train": 4, "dev": 2, "test": 4, "held_out": 4}, ("eve", "fay"), ("the", "sea", "ship", "man")),
    "espeak-narrator": ({"train": 6, "test": 4}, ("eve",), ("the", "sea", "ship", "man")),
    "espeak-languages": ({"german": 2, "czech": 2}, ("gil",), ("ein", "pes")),
}
"""Utterances of each split, speakers and words."""
STREAM = [3, 8]
"""Layer and clusters of the units."""


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name == "esc10":
        draws = np.random.default_rng(0)
        rows = [
            (f"{split}{number}", split, "rain", 5 if split == "test" else 1, draws.integers(-900, 900, SAMPLE_RATE))
            for split in ("train", "test")
            for number in range(2)
        ]
        schema = {
            "clip": pl.String,
            "split": pl.String,
            "category": pl.String,
            "fold": pl.Int8,
            "samples": pl.List(pl.Int16),
        }
        rows = [(*row[:4], row[4].astype(np.int16)) for row in rows]
        _write(name, directory, esc10.FILE, pl.DataFrame(rows, schema=schema, orient="row"), ["train", "test"])
        return
    if name not in _SPEECH:
        raise TesseraError(f"study audio-tokenizer has no stand-in of {name!r}; expected esc10 or one of {[*_SPEECH]}.")
    counts, speakers, words = _SPEECH[name]
    rows = [
        _utterance(split, number, speakers[number % len(speakers)], words, number + 100 * place)
        for place, (split, count) in enumerate(counts.items())
        for number in range(count)
    ]
    _write(name, directory, FILE, pl.DataFrame(rows, schema=SCHEMA, orient="row"), list(counts))


def _utterance(split: str, number: int, speaker: str, words: tuple[str, ...], seed: int) -> tuple:
    """Return one row: every word is 80 ms of a tone."""
    draws = np.random.default_rng(seed)
    said = draws.integers(len(words), size=2 + number % 2)
    length = SAMPLE_RATE * 8 // 100
    time = np.arange(length) / SAMPLE_RATE
    tones = [4_000 * np.sin(2 * np.pi * (200 + 150 * word) * time) * np.hanning(length) for word in said]
    samples = (np.concatenate(tones) + draws.normal(0, 20, length * len(said))).astype(np.int16)
    spans = [{"word": words[word], "start": at * length, "end": (at + 1) * length} for at, word in enumerate(said)]
    text = " ".join(words[word] for word in said)
    return f"{split}/{number:05}", split, speaker, text, samples, spans, [], []


def _write(name: str, directory: Path, file: str, table: pl.DataFrame, splits: list[str]) -> None:
    parquet.write(table, directory / file)
    rule = {"by": "column", "column": "split", "names": splits}
    tables = {file: {"bytes": (directory / file).stat().st_size}}
    meta = {"name": name, "splits": rule, "tables": tables}
    (directory / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def make_base(name: str, directory: Path) -> None:
    """Write an untrained, tiny base of the right kind into an existing directory.

    Raises:
        TesseraError: The study uses no such base.
    """
    kind = next((kind for kind in _BASES if name.startswith(kind)), None)
    if kind is None:
        raise TesseraError(f"study audio-tokenizer has no stand-in of {name!r}; expected one of {[*_BASES]}.")
    description = _BASES[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = construct(description)
    if kind == "ctc-judge":
        words = sorted({word for _, _, known in _SPEECH.values() for word in known} - {"ein", "pes"})
        save_judge(directory, CTCJudge(model, words, ["the sea", " ".join(DIGITS)], beams=2))
    if kind == "speech-units":
        _write_units(directory)
    save_base(directory, model, description, f"# {name}\n\nAn untrained stand-in.")


def _write_units(directory: Path) -> None:
    """Write the units of every utterance of two data sets, as the recipe of the base does."""
    draws = np.random.default_rng(3)
    rows = [
        (data, f"{split}/{number:05}", draws.integers(STREAM[1], size=24).tolist())
        for data in ("fsdd-connected", "espeak-sent")
        for split, count in _SPEECH[data][0].items()
        for number in range(count)
    ]
    schema = {"dataset": pl.String, "utterance": pl.String, f"layer{STREAM[0]}_{STREAM[1]}": pl.List(pl.UInt16)}
    parquet.write(pl.DataFrame(rows, schema=schema, orient="row"), directory / "units.parquet")


_ENCODER = specification(
    "components.speech.ssl_encoder",
    width=8,
    layers=3,
    heads=2,
    feed_forward=8,
    position_kernel=3,
    position_groups=2,
)
_BASES: dict[str, dict[str, Any]] = {
    "mel-vocoder": specification("components.audio.mel_vocoder", width=8, blocks=1),
    "codec-base": specification(
        "components.tokenizers.audio.codec",
        quantizer=specification(
            "components.quantizers.rvq", codebook_size=16, code_dim=4, codebooks=8, commitment_weight=0.25
        ),
        width=8,
        blocks=1,
        drop="powers_of_two",
    ),
    "unit-vocoder": specification(
        "components.speech.unit_vocoder", codebook_sizes=[STREAM[1]], speakers=["ann", "bob"], width=8, blocks=1
    ),
    "speech-units": specification("components.tokenizers.audio.ssl_kmeans", encoder=_ENCODER, streams=[STREAM]),
    "ctc-judge": specification("components.speech.recogniser", channels=8, hidden=8, layers=1),
    "speaker-judge": specification("components.speech.speaker", channels=8, width=8),
}
