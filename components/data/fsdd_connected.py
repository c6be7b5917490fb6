"""Connected digits: strings of three to six recordings of one speaker of the Free Spoken Digit Dataset.

    recording -- 5 ms cross-fade -- gap of 20 to 120 ms -- 5 ms cross-fade -- recording -- ...

A gap holds noise with the level and spectrum of the quieter of the two edges beside it. Splits share no recording:
takes 0-4 of every digit and speaker are the publisher's test takes, 5-7 are for dev and 8-49 for train.

Letters: `S` samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from components.data import fsdd, parquet
from components.data.speech import FILE, SAMPLE_RATE, SCHEMA, SpeechError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TAKES = {"train": range(8, 50), "dev": range(5, 8), "test": range(5)}
_UTTERANCES = {"train": 4_000, "dev": 300, "test": 600}
_FEWEST, _MOST = 3, 6
_FADE = SAMPLE_RATE * 5 // 1_000
_EDGE = SAMPLE_RATE * 15 // 1_000
_GAP = (SAMPLE_RATE * 20 // 1_000, SAMPLE_RATE * 120 // 1_000)
_SEED = 0x5D16


def from_recordings(paths: Mapping[str, Path], directory: Path) -> None:
    """Make the data set from the recordings of `fsdd`: its table, or the publisher's archive.

    Columns: those of `components.data.speech`; `sources` holds `<digit>_<speaker>_<take>` of every recording inside.

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
    parquet.write(connected(recordings, _UTTERANCES), directory / FILE)


def connected(recordings: pl.DataFrame, utterances: Mapping[str, int], seed: int = _SEED) -> pl.DataFrame:
    """Return connected digits as rows of `components.data.speech.SCHEMA`.

    Args:
        recordings: Table of `fsdd`.
        utterances: Number of utterances of each split; speakers take turns.
        seed: Equal seeds give equal rows.

    Raises:
        SpeechError: A split is unknown, or a take that it needs is missing.
    """
    waves = dict(zip(fsdd.names(recordings), fsdd.waveforms(recordings["audio"]), strict=True))
    waves = {name: wave.double().numpy() * (1 << 15) for name, wave in waves.items()}
    speakers = sorted(set(recordings["speaker"]))
    rows = []
    for place, (split, count) in enumerate(utterances.items()):
        if split not in _TAKES:
            raise SpeechError(f"connected digits have no split {split!r}; expected some of {', '.join(_TAKES)}.")
        draws = np.random.default_rng([seed, place])
        for number in range(count):
            speaker = speakers[number % len(speakers)]
            length = int(draws.integers(_FEWEST, _MOST + 1))
            said = draws.integers(len(DIGITS), size=length)
            takes = draws.choice(np.array(_TAKES[split]), size=length)
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


def joined(waves: list[np.ndarray], draws: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Join recordings (S,) with gaps between them.

    Returns:
        Samples int16 (S,), and first sample and end of every recording, which overlap with their gaps by the
        cross-fade.
    """
    total, spans = waves[0], [(0, len(waves[0]))]
    for before, after in itertools.pairwise(waves):
        gap = int(draws.integers(_GAP[0], _GAP[1] + 1))
        # Both cross-fades lie inside the filling, so that so much of it stands alone.
        filling = _noise_like(_quieter(before[-_EDGE:], after[:_EDGE]), gap + 2 * _FADE, draws)
        total = _faded(total, filling)
        start = len(total) - _FADE
        total = _faded(total, after)
        spans.append((start, start + len(after)))
    return np.clip(np.rint(total), -(1 << 15), (1 << 15) - 1).astype(np.int16), spans


def _faded(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    rising = (np.arange(_FADE) + 0.5) / _FADE
    between = left[-_FADE:] * (1 - rising) + right[:_FADE] * rising
    return np.concatenate([left[:-_FADE], between, right[_FADE:]])


def _quieter(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one if np.square(one).mean() <= np.square(other).mean() else other


def _noise_like(edge: np.ndarray, length: int, draws: np.random.Generator) -> np.ndarray:
    """Return noise (length,) with the power and, smoothed, the spectrum of an edge."""
    edge = edge - edge.mean()
    power = np.square(edge).mean()
    white = np.fft.rfft(draws.standard_normal(length))
    if power == 0:
        return np.zeros(length)
    shape = np.abs(np.fft.rfft(edge * np.hanning(len(edge)), 256))
    gains = np.interp(np.linspace(0, 1, len(white)), np.linspace(0, 1, len(shape)), shape)
    shaped = np.fft.irfft(white * gains, length)
    return shaped * np.sqrt(power / np.square(shaped).mean())
