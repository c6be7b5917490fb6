"""Utterances in memory against the rows they come from, noise at exact ratios, pink noise by its spectrum."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from components.data import parquet
from components.data.errors import UnknownSplit
from components.data.speech import (
    FILE,
    FULL_SCALE,
    SCHEMA,
    SpeechError,
    mixed,
    pink_noise,
    read_speech,
    speech,
    to_samples,
    to_waveform,
)

LENGTHS = (300, 120, 1_000, 50)


def frame(lengths=LENGTHS, split="train"):
    draws = np.random.default_rng(0)
    rows = [
        (
            f"{split}/{number}",
            split,
            "ann",
            "one two",
            draws.integers(-FULL_SCALE, FULL_SCALE, length).tolist(),
            [{"word": "one", "start": 0, "end": length // 2}, {"word": "two", "start": length // 2, "end": length}],
            [],
            ["1_ann_5", "2_ann_7"],
        )
        for number, length in enumerate(lengths)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@pytest.fixture
def directory(tmp_path):
    table = pl.concat([frame(), frame((10,), "test")])
    parquet.write(table, tmp_path / FILE)
    splits = {"by": "column", "column": "split", "names": ["train", "test", "held_out"]}
    sizes = {"bytes": (tmp_path / FILE).stat().st_size}
    (tmp_path / "meta.json").write_text(json.dumps({"name": "x", "tables": {FILE: sizes}, "splits": splits}))
    return tmp_path


def test_waveforms_words_and_texts_are_those_of_the_rows(directory):
    utterances = read_speech(directory, "train")
    rows = frame()
    assert len(utterances) == 4
    assert utterances.lengths.tolist() == list(LENGTHS)
    assert utterances.seconds == sum(LENGTHS) / 8_000
    for row in range(4):
        expected = torch.tensor(rows["samples"][row].to_list(), dtype=torch.float32) / FULL_SCALE
        assert torch.equal(utterances.waveform(row), expected)
    assert utterances.words(1) == [("one", 0, 60), ("two", 60, 120)]
    assert utterances.phonemes(1) == []
    assert utterances.names[2] == "train/2"
    assert utterances.texts[0] == "one two"


def test_a_batch_holds_every_utterance_and_silence_behind_it(directory):
    utterances = read_speech(directory, "train")
    batch, lengths = utterances.padded([3, 0, 2])
    assert batch.shape == (3, 1_000)
    assert lengths.tolist() == [50, 300, 1_000]
    for place, row in enumerate((3, 0, 2)):
        assert torch.equal(batch[place, : lengths[place]], utterances.waveform(row))
        assert (batch[place, lengths[place] :] == 0).all()


def test_every_crop_lies_in_one_utterance_and_all_parts_are_drawn():
    samples = torch.arange(1, sum(LENGTHS) + 1)
    rows = frame().with_columns(
        pl.Series("samples", [part.tolist() for part in samples.split(LENGTHS)], dtype=pl.List(pl.Int16))
    )
    utterances = speech(rows)
    crops = (utterances.crops(3_000, 100, torch.Generator().manual_seed(0)) * FULL_SCALE).long()
    assert crops.shape == (3_000, 100)
    ends = set(np.cumsum(LENGTHS).tolist())
    for crop in crops.unique(dim=0).tolist():
        inside = [value for value in crop if value]
        assert inside == list(range(inside[0], inside[0] + len(inside)))
        assert not any(value in ends for value in inside[:-1])
        assert len(inside) == 100 or inside[-1] in ends
    assert set(crops.flatten().tolist()) - {0} == set(samples.tolist())
    shares = [(crops[:, 0] <= 300).double().mean(), (crops[:, 0] > 1_420).double().mean()]
    assert shares == pytest.approx([300 / 1_470, 50 / 1_470], abs=0.03)


def test_few_utterances_are_spread_over_the_split(directory):
    assert read_speech(directory, "train", 2).names == ["train/0", "train/2"]
    assert len(read_speech(directory, "train", 9)) == 4


def test_what_is_not_there_is_named(directory):
    with pytest.raises(UnknownSplit, match="tran"):
        read_speech(directory, "tran")
    with pytest.raises(SpeechError, match="no utterances in the split 'held_out'"):
        read_speech(directory, "held_out")
    with pytest.raises(SpeechError, match="at least 1"):
        read_speech(directory, "train", 0)
    with pytest.raises(SpeechError, match="'train/1' has no samples"):
        speech(frame((5, 0)))


def test_samples_survive_the_way_to_a_waveform_and_back_and_loud_ones_are_cut_off():
    samples = torch.arange(-FULL_SCALE, FULL_SCALE).to(torch.int16)
    assert torch.equal(to_samples(to_waveform(samples)), samples)
    assert to_samples(torch.tensor([2.0, -2.0])).tolist() == [FULL_SCALE - 1, -FULL_SCALE]


@pytest.mark.parametrize("decibels", [-5.0, 0.0, 10.0])
def test_noise_is_mixed_in_at_the_asked_ratio(decibels):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 500, generator=generator)
    added = mixed(clean, noise, decibels) - clean
    ratio = 10 * (clean.square().mean(-1) / added.square().mean(-1)).log10()
    torch.testing.assert_close(ratio, torch.full((3,), decibels), atol=1e-3, rtol=0)
    silence = torch.zeros(3, 500)
    assert torch.equal(mixed(clean, silence, decibels), clean)


def test_pink_noise_loses_three_decibels_per_octave():
    noise = pink_noise((64, 4_096), torch.Generator().manual_seed(0))
    torch.testing.assert_close(noise.std(-1), torch.ones(64))
    power = torch.fft.rfft(noise.double()).abs().square().mean(0)
    octaves = [10 * power[2**k : 2 ** (k + 1)].mean().log10() for k in range(3, 11)]
    np.testing.assert_allclose(np.diff(octaves), -3.01, atol=0.5)
