"""The utterances of a base that hears speech: several data sets as one, batches of like lengths, noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from components.data import esc10
from components.data.speech import Speech, pink_noise, read_speech, to_waveform
from components.errors import TesseraError
from components.metrics.tables import MetricTable
from components.metrics.word_error import Errors, error_rate
from flows.studies.context import StageContext

DIGITS, SENTENCES, CLIPS = "fsdd-connected", "espeak-sent", "esc10"
_POOL = 4  # batches whose utterances are sorted by length together
_SCALE_UTTERANCES = 256


class UtteranceError(TesseraError):
    """A recipe was not given the speech it needs."""


class Waves(NamedTuple):
    """A batch: waveforms (B, S) and their samples (B,)."""

    waveform: Tensor
    samples: Tensor


def speech_folder(stage: StageContext, name: str) -> Path:
    """Return the folder of a data set that the base names.

    Raises:
        UtteranceError: The base does not name it.
    """
    if f"data/{name}" not in stage.inputs:
        raise UtteranceError(f"{stage.paper} needs data set {name!r}; name it under 'data' of params/bases.yaml.")
    return stage.inputs[f"data/{name}"]


def utterances(stage: StageContext, split: str, count: int | None = None) -> Speech:
    """Return a split of all data sets of speech that the base names, one after the other, `count` of each at most."""
    names = [name for name in (DIGITS, SENTENCES) if f"data/{name}" in stage.inputs]
    if not names:
        raise UtteranceError(f"{stage.paper} names no data set of speech; expected {DIGITS} or {SENTENCES}.")
    return joined([read_speech(speech_folder(stage, name), split, count) for name in names])


def joined(parts: Sequence[Speech]) -> Speech:
    """Return utterances of several data sets as one."""
    lengths = torch.cat([part.lengths for part in parts])
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return Speech(pl.concat([part.frame for part in parts]), torch.cat([part.samples for part in parts]), offsets)


def part_of(speech: Speech, rows: Sequence[int] | Tensor) -> Speech:
    """Return some of the utterances, in the order of `rows`."""
    rows = torch.as_tensor(rows)
    lengths = speech.lengths[rows]
    samples = [speech.samples[speech.offsets[row] : speech.offsets[row + 1]] for row in rows.tolist()]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return Speech(speech.frame[rows.tolist()], torch.cat(samples), offsets)


def like_lengths(speech: Speech, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw rows of utterances, (B,), that are about as long as one another, so that little of a batch is padding.

    Every utterance is drawn as often as any other: a few batches are drawn, sorted by length, and one of them is taken.
    """
    rows = torch.randint(len(speech), (_POOL * batch_size,), generator=generator)
    rows = rows[speech.lengths[rows].argsort(stable=True)]
    group = int(torch.randint(_POOL, (), generator=generator))
    return rows[group * batch_size : (group + 1) * batch_size]


def in_batches(speech: Speech, batch_size: int, device: str) -> Iterator[tuple[list[int], Waves]]:
    """Go through all utterances in order of their lengths: rows, and their waveforms on a device."""
    order = speech.lengths.argsort(stable=True)
    for rows in order.split(batch_size):
        waveform, samples = speech.padded(rows)
        yield rows.tolist(), Waves(waveform.to(device), samples.to(device))


def scale_sample(speech: Speech) -> Waves:
    """Return some utterances, evenly spread, that means and deviations of bands are taken from."""
    rows = torch.arange(min(_SCALE_UTTERANCES, len(speech))) * len(speech) // min(_SCALE_UTTERANCES, len(speech))
    return Waves(*speech.padded(rows))


def cut_at(speech: Speech, rows: Tensor, starts: Tensor, length: int) -> Waves:
    """Return `length` samples from `starts` (B,) on of utterances (B,), 0 behind their ends."""
    left = (speech.lengths[rows] - starts).clamp(max=length)
    places = torch.arange(length)
    index = (speech.offsets[rows] + starts)[:, None] + places
    inside = places < left[:, None]
    return Waves(to_waveform(speech.samples[index.clamp(max=len(speech.samples) - 1)]) * inside, left)


def noise_of(stage: StageContext) -> Callable[[int, int, torch.Generator], Tensor]:
    """Return a source of noise (B, S): pink, or in half of the cases clips of esc10's training folds, if named."""
    waves = esc10.clips(stage.inputs[f"data/{CLIPS}"], "train") if f"data/{CLIPS}" in stage.inputs else []

    def draw(count: int, length: int, generator: torch.Generator) -> Tensor:
        noise = pink_noise((count, length), generator)
        if waves:
            recorded = esc10.noise_of(waves, (count, length), generator)
            noise = torch.where(torch.rand(count, 1, generator=generator) < 0.5, recorded, noise)
        return noise

    return draw


def add_error_rate(table: MetricTable, metric: str, errors: Sequence[Errors]) -> float:
    """Add edits over words of all utterances together, with this ratio's variance over utterances; return it."""
    rate = error_rate(errors)
    total = sum(each.words for each in errors)
    variance = sum((each.edits - rate * each.words) ** 2 for each in errors) / total**2
    table.add(metric, rate, unit="share", samples=len(errors), variance=variance, normaliser="words")
    return rate
