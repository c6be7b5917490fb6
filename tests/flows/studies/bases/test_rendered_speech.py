"""The recipes of the bases that render speech, on stand-ins small enough to train in a moment."""

import wave
from pathlib import Path

import polars as pl
import pytest
import tiny_speech
import torch

from components.bases import load_model
from components.data.speech import read_speech
from components.training.determinism import reset
from flows.studies.bases import (
    mel_codec,
    mel_codec_params,
    mel_vocoder,
    mel_vocoder_params,
    rendered_speech,
    speech_codec,
    speech_codec_params,
)
from flows.studies.bases.rendered_speech import drawn_stretches, rendered
from flows.studies.bases.utterances import UtteranceError
from flows.studies.context import StageContext

TINY = {"width": 8, "blocks": 1, "steps": 3, "seconds": 0.1, "batch_size": 4, "test_utterances": 2}
CODES = {"codebooks": 2, "codebook_size": 8, "code_dim": 4, "start_stretches": 8}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    """Stand-ins of the speech data sets."""
    root = tmp_path_factory.mktemp("inputs")
    digits = tiny_speech.write(root / "fsdd-connected", {"train": 6, "dev": 2, "test": 3})
    splits = {"train": 6, "dev": 2, "test": 3, "held_out": 3}
    sentences = tiny_speech.write(root / "espeak-sent", splits, "espeak-sent", seed=1)
    return {"data/fsdd-connected": digits, "data/espeak-sent": sentences}


@pytest.fixture(scope="module")
def vocoder(inputs, tmp_path_factory) -> Path:
    given = stage(inputs, tmp_path_factory.mktemp("vocoder"), mel_vocoder_params.Params(**TINY))
    mel_vocoder.train(given)
    return given.output


def stage(inputs: dict[str, Path], output: Path, params) -> StageContext:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    reset(0)
    return StageContext(
        "base", "tiny-speech", "", "", 0, "small", params, inputs,
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip


def metrics(directory: Path) -> dict[tuple[str, str], float]:
    frame = pl.read_parquet(directory / "metrics.parquet").group_by("metric", "at").agg(pl.col("value").mean())
    return {(metric, at): value for metric, at, value in frame.iter_rows()}


def test_a_vocoder_is_trained_measured_and_described(inputs, vocoder):
    values = metrics(vocoder)
    assert {at for metric, at in values if metric == "mel_distance"} == {
        "speech=digits", "speech=sentences", "speech=held_out_voices",
    }  # fmt: skip
    assert values["mel_distance_share", ""] > 0
    model = load_model(vocoder)
    waves, _ = read_speech(inputs["data/fsdd-connected"], "test").padded([0, 1])
    assert model(model.spectra(waves)).shape[0] == 2
    card = (vocoder / "card.md").read_text()
    assert 'load_base("tiny-speech")' in card
    assert f"{values['mel_distance_share', '']:.1%}" in card


def test_examples_can_be_heard_and_seen(vocoder):
    assert (vocoder / "examples.png").read_bytes().startswith(b"\x89PNG")
    files = sorted((vocoder / "examples").glob("*.wav"))
    assert [path.name for path in files if "digits" in path.name] == [
        "digits-00000-original.wav", "digits-00000-vocoder.wav",
    ]  # fmt: skip
    with wave.open(str(files[0])) as original, wave.open(str(files[1])) as copy:
        assert original.getframerate() == 8_000
        assert original.getnframes() == copy.getnframes() > 0


def test_a_codec_is_measured_at_every_rate(inputs, tmp_path):
    given = stage(inputs, tmp_path, speech_codec_params.Params(**TINY, **CODES))
    speech_codec.train(given)
    values = metrics(given.output)
    assert values["bit_rate", "codebooks=1"] == 150
    assert values["bit_rate", "codebooks=2"] == 300
    for kept in (1, 2):
        assert values["mel_distance", f"codebooks={kept},speech=held_out_voices"] > 0
        assert values["coded_rate", f"codebooks={kept}"] > 0
    gain = values["mel_distance", "codebooks=1,speech=digits"] - values["mel_distance", "codebooks=2,speech=digits"]
    assert values["least_gain", ""] == pytest.approx(gain)
    model = load_model(given.output)
    assert model.encode(torch.zeros(1, 1_600)).shape == (1, 10, 2)
    card = (given.output / "card.md").read_text()
    assert "| 2 | 0.30 |" in card
    assert (given.output / "examples" / "digits-00000-0-3-kbps.wav").is_file()


class Deaf:
    """A judge that hears the word "one" everywhere."""

    recogniser = torch.nn.Identity()

    def transcribe(self, waveforms):
        return ["one"] * len(waveforms)


def test_the_judge_counts_wrong_words_where_the_base_names_it(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(rendered_speech, "load_judge", lambda directory: Deaf())
    params = speech_codec_params.Params(**TINY, **CODES)
    given = stage({**inputs, "bases/ctc-judge": tmp_path}, tmp_path / "judged", params)
    speech_codec.train(given)
    texts = read_speech(inputs["data/fsdd-connected"], "test", 2).texts
    right = sum("one" in text.split() for text in texts)
    words = sum(len(text.split()) for text in texts)
    for kept in (1, 2):
        assert metrics(given.output)[f"digit_wer_rvq{kept}", ""] == pytest.approx((words - right) / words)
    assert f"{(words - right) / words:.1%}" in (given.output / "card.md").read_text()


def test_a_mel_codec_is_rendered_by_the_vocoder(inputs, vocoder, tmp_path):
    params = mel_codec_params.Params(**TINY, **CODES)
    with pytest.raises(UtteranceError, match="rendered by a mel-vocoder"):
        mel_codec.train(stage(inputs, tmp_path / "none", params))
    given = stage({**inputs, "bases/mel-vocoder": vocoder}, tmp_path / "some", params)
    mel_codec.train(given)
    values = metrics(given.output)
    assert values["bit_rate", ""] == 300
    assert values["mel_distance", "codebooks=none,speech=digits"] > 0
    assert 0 < values["codebook_usage", ""] <= 1
    model = load_model(given.output)
    assert model.decode(model.encode(torch.full((1, 10, 40), -5.0))).shape == (1, 10, 40)
    # The scale is that of the training frames.
    assert model.mean.abs().sum() > 0


def test_the_same_recipe_gives_the_same_bytes(inputs, tmp_path):
    params = speech_codec_params.Params(**TINY, **CODES)
    first, second = (stage(inputs, tmp_path / name, params) for name in ("one", "two"))
    for given in (first, second):
        reset(0)
        speech_codec.train(given)
    files = sorted(path.relative_to(first.output) for path in first.output.rglob("*") if path.is_file())
    assert len(files) > 10
    for file in files:
        assert (first.output / file).read_bytes() == (second.output / file).read_bytes(), file


def test_every_data_set_gives_its_share_of_a_batch_and_lengths_survive_rendering(inputs):
    parts = [read_speech(path, "train") for path in inputs.values()]
    drawn = drawn_stretches(parts, 5, 100, torch.Generator().manual_seed(0))
    assert drawn.shape == (5, 100)
    speech = parts[0]
    same = rendered(speech, lambda waveforms: waveforms, "cpu")
    assert [len(each) for each in same] == speech.lengths.tolist()
    for row, each in enumerate(same):
        assert torch.equal(each, speech.waveform(row))
