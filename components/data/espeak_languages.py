"""Sentences in languages that no network of speech heard: German and Czech, spoken by voices of espeak-ng.

The sentences are descriptions of pictures (Multi30k); a split is a language.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from components.data import parquet
from components.data.espeak import Synthesiser
from components.data.speech import FILE, SAMPLE_RATE, SCHEMA, SpeechError

LANGUAGES = {"german": "de", "czech": "cs"}
_SPLIT = "test_2016_flickr"
_RATE, _PITCHES = 190, (35, 65)
_SENTENCES = 40
_LONGEST = 3 * SAMPLE_RATE


def from_descriptions(paths: Mapping[str, Path], directory: Path) -> None:
    """Make the data set from the table of `multi30k`, or the publisher's texts: the first test set.

    Columns: those of `components.data.speech`; `speaker` is the voice and the pitch.

    Raises:
        SpeechError: There are too few short sentences.
        EspeakError: The synthesiser cannot be used.
    """
    texts = {language: _sentences(paths, code) for language, code in LANGUAGES.items()}
    parquet.write(spoken(texts, _SENTENCES), directory / FILE)


def _sentences(paths: Mapping[str, Path], code: str) -> list[str]:
    for name, path in paths.items():
        if path.suffix == ".parquet":
            table = parquet.read(path).filter(pl.col("split") == _SPLIT)
            return table[code].drop_nulls().to_list()
        if name == f"{_SPLIT}.{code}.gz":
            lines = gzip.decompress(path.read_bytes()).decode("utf-8").removesuffix("\n").split("\n")
            return [line.strip() for line in lines]
    raise SpeechError(f"{', '.join(paths)} hold no {_SPLIT} in {code!r}; expected the table or {_SPLIT}.{code}.gz.")


def spoken(texts: Mapping[str, Sequence[str]], count: int) -> pl.DataFrame:
    """Return the first `count` sentences of each language that last at most 3 s, two pitches in turn.

    Raises:
        SpeechError: A language has not as many.
    """
    rows = []
    for language, sentences in texts.items():
        voice, number = LANGUAGES[language], 0
        with Synthesiser() as synthesiser:
            for text in sentences:
                if number == count:
                    break
                pitch = _PITCHES[number % len(_PITCHES)]
                said = synthesiser.say(text, voice, _RATE, pitch)
                if len(said.samples) <= _LONGEST:
                    phones = [{"symbol": symbol, "start": start, "end": end} for symbol, start, end in said.phonemes]
                    name, speaker = f"{language}/{number:05}", f"{voice}-{pitch}"
                    rows.append((name, language, speaker, text, said.samples, [], phones, []))
                    number += 1
        if number < count:
            raise SpeechError(f"{language} has {number} sentences of at most 3 s; expected {count}. Give more texts.")
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
