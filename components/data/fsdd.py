"""The Free Spoken Digit Dataset: spoken digits as WAV files, to tables and to waveforms.

Letters: `S` samples of a recording.

Source: Jackson et al., Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401.
"""

from __future__ import annotations

import io
import re
import tarfile
import wave
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.data import parquet
from components.data.errors import DataError

FILE = "fsdd.parquet"
SAMPLE_RATE = 8_000
_SCHEMA = {"audio": pl.Binary, "digit": pl.Int8, "speaker": pl.String, "index": pl.Int16, "split": pl.String}
_TEST_TAKES = 5
_FULL_SCALE = 1 << 15


def from_archive(paths: Mapping[str, Path], directory: Path) -> None:
    """Convert a repository archive with files `<root>/recordings/<digit>_<speaker>_<take>.wav`.

    Rows are ordered by speaker, digit and take; the first five takes of every digit and speaker are the test split, as
    the publisher says. WAV bytes are unchanged.

    Raises:
        ValueError: The archive holds no recording.
    """
    (archive,) = paths.values()
    rows = []
    with tarfile.open(archive, "r:*") as members:
        for member in members:
            found = re.fullmatch(r"[^/]+/recordings/(\d)_([a-z]+)_(\d+)\.wav", member.name)
            if found and member.isfile():
                digit, speaker, take = int(found[1]), found[2], int(found[3])
                split = "test" if take < _TEST_TAKES else "train"
                rows.append((members.extractfile(member).read(), digit, speaker, take, split))
    if not rows:
        raise ValueError("no file recordings/<digit>_<speaker>_<take>.wav in it")
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    parquet.write(frame.sort("speaker", "digit", "index"), directory / FILE)


def waveforms(files: Iterable[bytes]) -> list[Tensor]:
    """Decode WAV files into waveforms, float32 (S,) in [-1, 1).

    Raises:
        DataError: A file is not 16-bit mono at 8 kHz.
    """
    decoded = []
    for position, content in enumerate(files):
        with wave.open(io.BytesIO(content)) as recording:
            form = recording.getnchannels(), recording.getsampwidth(), recording.getframerate()
            if form != (1, 2, SAMPLE_RATE):
                raise DataError(
                    f"Recording {position} has {form[0]} channels of {8 * form[1]} bits at {form[2]} Hz; expected one "
                    f"of 16 bits at {SAMPLE_RATE} Hz. Convert it first."
                )
            samples = np.frombuffer(recording.readframes(recording.getnframes()), "<i2")
        decoded.append(torch.from_numpy(samples.astype(np.float32) / _FULL_SCALE))
    return decoded


def names(frame: pl.DataFrame) -> list[str]:
    """Return the publisher's name of each recording, `<digit>_<speaker>_<take>`."""
    return frame.select(pl.format("{}_{}_{}", "digit", "speaker", "index")).to_series().to_list()
