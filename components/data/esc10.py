"""ESC-10: environmental sounds as noise to speak against, at 8 kHz.

Folds 1 to 4 of the publisher are for training, fold 5 is for testing; clips of one recording are in one fold.

Letters: `S` samples, `B` clips.

Source: Piczak 2015, ESC: Dataset for Environmental Sound Classification.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy.signal import resample_poly
from torch import Tensor

from components.data import parquet, tables
from components.data.speech import FULL_SCALE, SAMPLE_RATE, SpeechError, to_waveform

FILE = "noise.parquet"
_TEST_FOLD = 5
_SCHEMA = {
    "clip": pl.String, "split": pl.String, "category": pl.String, "fold": pl.Int8, "samples": pl.List(pl.Int16),
}  # fmt: skip


def from_clips(paths: Mapping[str, Path], directory: Path) -> None:
    """Convert FLAC clips to 16-bit samples at 8 kHz: `noise.parquet`, one row per clip, by name.

    Raises:
        ValueError: A clip is not one channel at a multiple of 8 kHz.
    """
    import soundfile

    (path,) = paths.values()
    rows = []
    for file, category, fold, content in parquet.read(path, ["file", "category", "fold", "audio"]).iter_rows():
        samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
        if samples.ndim != 1 or rate % SAMPLE_RATE:
            raise ValueError(f"clip {file} has shape {samples.shape} at {rate} Hz, not one channel at k * 8000 Hz")
        lower = np.rint(resample_poly(samples.astype(np.float64), 1, rate // SAMPLE_RATE))
        split = "test" if fold == _TEST_FOLD else "train"
        rows.append((file, split, category, fold, np.clip(lower, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)))
    parquet.write(pl.DataFrame(rows, schema=_SCHEMA, orient="row").sort("clip"), directory / FILE)


def clips(directory: Path, split: str) -> list[Tensor]:
    """Return the clips of a split that are not silent, float32 (S,) in [-1, 1)."""
    frame = tables.read_split(directory, split, ["samples"])
    waves = [to_waveform(torch.from_numpy(samples.to_numpy().copy())) for samples in frame["samples"]]
    return [wave for wave in waves if bool(wave.any())]


def noise_of(waves: list[Tensor], shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw stretches of clips, float32 (B, S); a clip that is too short goes round.

    A stretch without sound (clips hold pauses) is moved to where the clip is loudest.

    Raises:
        SpeechError: There is no clip.
    """
    if not waves:
        raise SpeechError("there is no clip of noise; expected some. Obtain the data set esc10 again.")
    count, length = shape
    stretches = []
    for row in torch.randint(len(waves), (count,), generator=generator).tolist():
        start = int(torch.randint(len(waves[row]), (), generator=generator))
        places = torch.arange(length)
        stretch = waves[row][(start + places) % len(waves[row])]
        if not bool(stretch.any()):
            start = int(waves[row].abs().argmax()) - length // 2
            stretch = waves[row][(start + places) % len(waves[row])]
        stretches.append(stretch)
    return torch.stack(stretches)
