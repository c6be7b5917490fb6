"""Short strings of spoken digits: one to three recordings of one speaker, joined as in `fsdd_connected`.

Takes 0-4 of every digit and speaker are for test, 5-7 for dev, 8-49 for train; `text` has the digits in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from components.data import fsdd, parquet
from components.data.fsdd_connected import DIGITS, joined
from components.data.speech import FILE, SCHEMA, SpeechError

_TAKES = {"train": range(8, 50), "dev": range(5, 8), "test": range(5)}
_UTTERANCES = {"train": 4_000, "dev": 200, "test": 600}
_MOST = 3
_SEED = 0x57


def from_recordings(paths: Mapping[str, Path], directory: Path) -> None:
    """Make the data set from the recordings of `fsdd`: its table, or the publisher's archive.

    Raises:
        ValueError: The file holds no recordings.
        SpeechError: A take that a split needs is missing.
    """
    (path,) = paths.values()
    if path.suffix != ".parquet":
        fsdd.from_archive(paths, directory)
        path = directory / fsdd.FILE
    recordings = parquet.read(path)
    (directory / fsdd.FILE).unlink(missing_ok=True)
    parquet.write(strings(recordings, _UTTERANCES), directory / FILE)


def strings(recordings: pl.DataFrame, utterances: Mapping[str, int], seed: int = _SEED) -> pl.DataFrame:
    """Return strings of digits as rows of `components.data.speech.SCHEMA`; speakers take turns.

    Args:
        recordings: Table of `fsdd`.
        utterances: Number of utterances of each split.
        seed: Equal seeds give equal rows.

    Raises:
        SpeechError: A take that a split needs is missing.
    """
    waves = dict(zip(fsdd.names(recordings), fsdd.waveforms(recordings["audio"]), strict=True))
    waves = {name: wave.double().numpy() * (1 << 15) for name, wave in waves.items()}
    speakers = sorted(set(recordings["speaker"]))
    rows = []
    for place, (split, count) in enumerate(utterances.items()):
        draws = np.random.default_rng([seed, place])
        for number in range(count):
            speaker = speakers[number % len(speakers)]
            said = draws.integers(len(DIGITS), size=draws.integers(1, _MOST + 1))
            takes = draws.choice(np.array(_TAKES[split]), size=len(said))
            sources = [f"{digit}_{speaker}_{take}" for digit, take in zip(said, takes, strict=True)]
            if absent := [name for name in sources if name not in waves]:
                raise SpeechError(f"recording {absent[0]!r} is missing; expected takes 0 to 49 of every digit.")
            samples, spans = joined([waves[name] for name in sources], draws)
            words = [
                {"word": DIGITS[digit], "start": start, "end": end}
                for digit, (start, end) in zip(said, spans, strict=True)
            ]
            text = " ".join(DIGITS[digit] for digit in said)
            rows.append((f"{split}/{number:05}", split, speaker, text, samples, words, [], sources))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
