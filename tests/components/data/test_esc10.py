"""Clips of noise: from FLAC to 8 kHz, by fold, and stretches that are never silent."""

import io
import json

import numpy as np
import polars as pl
import pytest
import soundfile
import torch

from components.data import esc10, parquet
from components.data.esc10 import FILE, clips, from_clips, noise_of
from components.data.speech import SpeechError


def flac(samples, rate=16_000) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples.astype(np.int16), rate, format="FLAC")
    return content.getvalue()


@pytest.fixture
def directory(tmp_path):
    time = np.arange(16_000) / 16_000
    tone, silence = 9_000 * np.sin(2 * np.pi * 440 * time), np.zeros(16_000)
    rows = [("5-b", "Rain", 5, flac(silence)), ("1-a", "Rain", 1, flac(tone)), ("5-c", "Rain", 5, flac(tone))]
    schema = {"file": pl.String, "category": pl.String, "fold": pl.Int8, "audio": pl.Binary}
    parquet.write(pl.DataFrame(rows, schema=schema, orient="row"), tmp_path / "in.parquet")
    from_clips({"in.parquet": tmp_path / "in.parquet"}, tmp_path)
    splits = {"by": "column", "column": "split", "names": ["train", "test"]}
    sizes = {"bytes": (tmp_path / FILE).stat().st_size}
    (tmp_path / "meta.json").write_text(json.dumps({"name": "esc10", "tables": {FILE: sizes}, "splits": splits}))
    return tmp_path


def test_clips_are_resampled_and_fold_five_is_for_testing(directory):
    table = parquet.read(directory / FILE)
    assert table["clip"].to_list() == ["1-a", "5-b", "5-c"]
    assert table["split"].to_list() == ["train", "test", "test"]
    (wave,) = clips(directory, "train")
    time = np.arange(8_000) / 8_000
    expected = 9_000 / (1 << 15) * np.sin(2 * np.pi * 440 * time)
    np.testing.assert_allclose(wave.numpy()[100:-100], expected[100:-100], atol=1e-3)
    # The silent clip of fold 5 is left out.
    assert len(clips(directory, "test")) == 1


def test_a_stretch_is_never_silent_and_short_clips_go_round():
    wave = torch.zeros(1_000)
    wave[400:410] = 0.5
    drawn = noise_of([wave], (50, 100), torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 100)
    assert drawn.any(1).all()
    around = noise_of([torch.arange(1.0, 4.0)], (1, 9), torch.Generator().manual_seed(0))[0]
    assert around.unique().tolist() == [1, 2, 3]
    with pytest.raises(SpeechError, match="no clip"):
        noise_of([], (1, 9), torch.Generator())


def test_other_rates_are_refused(tmp_path):
    table = {"file": ["x"], "category": ["Rain"], "fold": [1], "audio": [flac(np.zeros(100), 11_025)]}
    parquet.write(pl.DataFrame(table), tmp_path / "in.parquet")
    with pytest.raises(ValueError, match="k \\* 8000"):
        esc10.from_clips({"in.parquet": tmp_path / "in.parquet"}, tmp_path)
