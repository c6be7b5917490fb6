"""Spoken digits from a stand-in of the publisher's archive."""

from __future__ import annotations

import io
import tarfile
import wave

import numpy as np
import polars as pl
import pytest
import torch

from components.data import fsdd
from components.data.errors import DataError

generator = np.random.default_rng(0)
SAMPLES = {
    f"{digit}_{speaker}_{take}": generator.integers(-(1 << 15), 1 << 15, 20 + take, dtype=np.int16)
    for digit in (0, 7)
    for speaker in ("theo", "george")
    for take in (0, 4, 5, 10)
}


def wav(samples: np.ndarray, rate: int = 8_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(channels)
        recording.setsampwidth(2)
        recording.setframerate(rate)
        recording.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture
def frame(tmp_path) -> pl.DataFrame:
    files = {f"set-26eb/recordings/{name}.wav": wav(samples) for name, samples in SAMPLES.items()}
    files["set-26eb/README.md"] = b"spoken digits"
    with tarfile.open(tmp_path / "fsdd.tar.gz", "w:gz") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    fsdd.from_archive({"fsdd.tar.gz": tmp_path / "fsdd.tar.gz"}, tmp_path)
    return pl.read_parquet(tmp_path / fsdd.FILE)


def test_the_archive_gives_every_recording_once_by_speaker_digit_and_number_of_the_take(frame):
    assert fsdd.names(frame)[:5] == ["0_george_0", "0_george_4", "0_george_5", "0_george_10", "7_george_0"]
    assert sorted(fsdd.names(frame)) == sorted(SAMPLES)
    assert frame.schema == {
        "audio": pl.Binary, "digit": pl.Int8, "speaker": pl.String, "index": pl.Int16, "split": pl.String,
    }  # fmt: skip


def test_the_first_five_takes_are_for_testing(frame):
    assert set(frame.filter(pl.col("split") == "test")["index"]) == {0, 4}
    assert set(frame.filter(pl.col("split") == "train")["index"]) == {5, 10}


def test_waveforms_are_the_samples_over_full_scale(frame):
    for name, waveform in zip(fsdd.names(frame), fsdd.waveforms(frame["audio"]), strict=True):
        assert waveform.dtype == torch.float32
        assert torch.equal((waveform * 32_768).to(torch.int16), torch.from_numpy(SAMPLES[name]))


def test_a_recording_of_another_kind_is_refused_by_its_position():
    samples = np.zeros(8, np.int16)
    with pytest.raises(DataError, match="Recording 1 has 1 channels of 16 bits at 16000 Hz"):
        fsdd.waveforms([wav(samples), wav(samples, rate=16_000)])


def test_an_archive_without_recordings_is_refused(tmp_path):
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match="no file recordings"):
        fsdd.from_archive({"fsdd.tar.gz": tmp_path / "empty.tar.gz"}, tmp_path)
