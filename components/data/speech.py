"""Data sets of utterances: one table schema, and a reader that gives waveforms, texts and times.

Every data set of speech has one table `speech.parquet`, one row per utterance at 8 kHz:

    utterance  name, `<split>/<number>`
    split      train, dev, test, or held_out (voices that no other split has)
    speaker    speaker, or voice of a synthesiser
    text       words, separated by blanks; digits are written out
    samples    16-bit samples
    words      word, start, end: where it is heard, in samples (the end is behind the last one)
    phonemes   symbol, start, end: likewise; empty where nobody knows
    sources    names of the recordings inside, empty for synthesised speech

Noise is no column: `mixed` adds it at a chosen ratio, so that every condition has the same utterances.

Letters: `S` samples, `N` utterances, `B` batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.data import tables
from components.errors import TesseraError

FILE = "speech.parquet"
SAMPLE_RATE = 8_000
"""Hz."""
FULL_SCALE = 1 << 15
WORDS = pl.List(pl.Struct({"word": pl.String, "start": pl.Int32, "end": pl.Int32}))
PHONEMES = pl.List(pl.Struct({"symbol": pl.String, "start": pl.Int32, "end": pl.Int32}))
SCHEMA = {
    "utterance": pl.String,
    "split": pl.String,
    "speaker": pl.String,
    "text": pl.String,
    "samples": pl.List(pl.Int16),
    "words": WORDS,
    "phonemes": PHONEMES,
    "sources": pl.List(pl.String),
}
_QUIET = 1e-8


class SpeechError(TesseraError):
    """Utterances were asked for that a data set does not have."""


@dataclass(frozen=True)
class Speech:
    """Utterances in memory, 16 bits a sample.

    Attributes:
        frame: All columns but the samples, one row per utterance.
        samples: Samples of all utterances one after the other, int16 (total,).
        offsets: First sample of each utterance and the end of the last, int64 (N + 1,).
    """

    frame: pl.DataFrame
    samples: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return self.frame.height

    @property
    def names(self) -> list[str]:
        """Names of the utterances."""
        return self.frame["utterance"].to_list()

    @property
    def texts(self) -> list[str]:
        """What is said."""
        return self.frame["text"].to_list()

    @property
    def speakers(self) -> list[str]:
        """Who says it."""
        return self.frame["speaker"].to_list()

    @property
    def lengths(self) -> Tensor:
        """Samples of each utterance, int64 (N,)."""
        return self.offsets.diff()

    @property
    def seconds(self) -> float:
        """Length of all utterances together."""
        return len(self.samples) / SAMPLE_RATE

    def waveform(self, row: int) -> Tensor:
        """Return one utterance, float32 (S,) in [-1, 1)."""
        return to_waveform(self.samples[self.offsets[row] : self.offsets[row + 1]])

    def waveforms(self) -> list[Tensor]:
        """Return every utterance, float32 (S,)."""
        return [self.waveform(row) for row in range(len(self))]

    def padded(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return utterances as a batch: float32 (B, S) with silence behind the shorter ones, and lengths (B,)."""
        rows = torch.as_tensor(rows)
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if len(rows) else 0
        places = torch.arange(longest)
        inside = places < lengths.unsqueeze(1)
        index = (self.offsets[rows].unsqueeze(1) + places).clamp(max=max(0, len(self.samples) - 1))
        return to_waveform(self.samples[index]) * inside, lengths

    def crops(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Draw stretches of `length` samples that begin anywhere, float32 (count, length).

        Utterances are drawn in proportion to their length; a stretch lies in one of them, and silence follows an
        utterance that is shorter.
        """
        drawn = torch.randint(len(self.samples), (count,), generator=generator)
        rows = torch.searchsorted(self.offsets, drawn, right=True) - 1
        lengths = self.lengths[rows]
        room = (lengths - length).clamp(min=0)
        starts = (torch.rand(count, generator=generator, dtype=torch.float64) * (room + 1)).long()
        places = torch.arange(length)
        index = (self.offsets[rows] + starts).unsqueeze(1) + places
        inside = starts.unsqueeze(1) + places < lengths.unsqueeze(1)
        return to_waveform(self.samples[index.clamp(max=len(self.samples) - 1)]) * inside

    def words(self, row: int) -> list[tuple[str, int, int]]:
        """Return the words of one utterance: word, first sample, end."""
        return [(each["word"], each["start"], each["end"]) for each in self.frame["words"][row]]

    def phonemes(self, row: int) -> list[tuple[str, int, int]]:
        """Return the phonemes of one utterance: symbol, first sample, end; none where nobody knows them."""
        return [(each["symbol"], each["start"], each["end"]) for each in self.frame["phonemes"][row]]


def read_speech(directory: Path, split: str, count: int | None = None) -> Speech:
    """Read the utterances of a split.

    Args:
        directory: Data set in the form of this module.
        split: Name of the split.
        count: Utterances to read, spread evenly over the split; all by default, or where there are not as many.

    Raises:
        SpeechError: The split is empty, or `count` is not positive.
        DataError: As in `tables.read_split`.
    """
    if count is not None and count < 1:
        raise SpeechError(f"{count} utterances of split {split!r} were asked for; expected at least 1.")
    frame = tables.read_split(directory, split, list(SCHEMA))
    if count is not None and count < len(frame):
        frame = frame[(np.arange(count) * len(frame)) // count]
    if frame.is_empty():
        raise SpeechError(f"{directory} has no utterances in the split {split!r}; obtain the data set again.")
    return speech(frame)


def speech(frame: pl.DataFrame) -> Speech:
    """Return rows of the schema as utterances in memory.

    Raises:
        SpeechError: An utterance has no samples.
    """
    lengths = frame["samples"].list.len().cast(pl.Int64).to_numpy()
    if len(lengths) and lengths.min() == 0:
        name = frame["utterance"][int(lengths.argmin())]
        raise SpeechError(f"utterance {name!r} has no samples; expected at least one. Leave it out of the table.")
    samples = torch.from_numpy(frame["samples"].explode().to_numpy().copy())
    offsets = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
    return Speech(frame.drop("samples"), samples, offsets)


def to_waveform(samples: Tensor) -> Tensor:
    """Return 16-bit samples as float32 in [-1, 1), of the same shape."""
    return samples.float() / FULL_SCALE


def to_samples(waveform: Tensor) -> Tensor:
    """Return a waveform as int16 samples of the same shape, rounded, and cut off where it is too loud."""
    return (waveform * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)


def mixed(speech: Tensor, noise: Tensor, decibels: float | Tensor) -> Tensor:
    """Add noise to speech at a ratio of their powers.

        y = x + g n,     g = sqrt(mean x^2 / mean n^2) 10^(-decibels / 20)

    Args:
        speech: (..., S).
        noise: (..., S).
        decibels: Ratio of speech to noise in dB, one number or (...).

    Returns:
        (..., S). Noise without any power stays without.
    """
    gain = 10 ** (-torch.as_tensor(decibels, dtype=speech.dtype, device=speech.device) / 20)
    ratio = speech.square().mean(-1) / noise.square().mean(-1).clamp(min=_QUIET**2)
    return speech + (ratio.sqrt() * gain).unsqueeze(-1) * noise


def pink_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw noise whose power falls as 1 / f, of deviation 1, float32 of `shape` (..., S).

    White noise is divided by sqrt(f) in the spectrum; what is below one period of the noise is left out.
    """
    length = shape[-1]
    spectrum = torch.fft.rfft(torch.randn(*shape, generator=generator))
    frequency = torch.arange(spectrum.shape[-1], dtype=torch.float32)
    frequency[0] = torch.inf
    noise = torch.fft.irfft(spectrum / frequency.sqrt(), length)
    return noise / noise.std(-1, keepdim=True).clamp(min=_QUIET)
