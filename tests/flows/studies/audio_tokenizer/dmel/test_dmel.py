"""dMel's arms at the smoke profile, and what must hold of tokens, rates, noise and error rates."""

import math
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from components.audio import level_coding
from components.audio.mel_vocoder import MelVocoder
from components.audio.parallel_channel_lm import ParallelChannelLM, build
from components.bases import construct
from components.compression import range_coding
from components.data import esc10
from components.data.fsdd_connected import DIGITS
from components.data.speech import read_speech
from components.metrics.word_error import error_rate, word_errors
from flows.declarations.resolve import resolve
from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.smoke import smoke_in_process, smoke_plan
from flows.studies.audio_tokenizer import standin
from flows.studies.audio_tokenizer.choices import chosen_tokens, fitted_bins
from flows.studies.audio_tokenizer.dmel import train as train_module
from flows.studies.audio_tokenizer.dmel.evaluate import evaluate, others
from flows.studies.audio_tokenizer.dmel.strings import (
    StringError,
    Strings,
    Tokenization,
    Tokens,
    description,
    digits_of,
    train_speech,
)
from flows.studies.audio_tokenizer.evaluate import Speakers
from flows.studies.audio_tokenizer.params import EvaluateParams, base_name
from flows.studies.audio_tokenizer.speech_sets import error_rows, heard_sets
from flows.studies.audio_tokenizer.tokenizers import MelGrid, MelTokens, unit_tokens
from flows.studies.context import StageContext

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("dmel")
VARIANT = PAPER.canonical


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    under = tmp_path_factory.mktemp("smoke")
    smoke_in_process(ROOT, PAPER, VARIANT, str(under))
    return under


def stage_of(smoke: Path, kind: str, arm: str, folder: Path, **changes) -> StageContext:
    """Return a smoke stage that writes into a folder of its own."""
    spec = next(each for each in smoke_plan(PAPER, VARIANT, str(smoke)) if (each.kind, each.arm) == (kind, arm))
    params = resolve(PAPER, VARIANT, arm, "smoke", kind).model_copy(update=changes)
    inputs = {name: Path(path) for name, path in spec.inputs.items()}
    return StageContext(kind, "dmel", VARIANT, arm, 0, "smoke", params, inputs, folder, folder, folder / "checkpoint")


def rates(folder: Path, metric: str) -> dict[str, float]:
    """Return a metric of an evaluation by its condition."""
    table = pl.read_parquet(folder / "metrics.parquet").filter(pl.col("metric") == metric)
    return dict(table.select("at", "value").rows())


def metrics(smoke: Path, arm: str) -> pl.DataFrame:
    spec = next(each for each in smoke_plan(PAPER, VARIANT, str(smoke)) if (each.kind, each.arm) == ("evaluate", arm))
    return pl.read_parquet(Path(spec.output) / "metrics.parquet")


def test_every_arm_writes_declared_metrics_in_their_units(smoke):
    declared = load_study(PAPER.study, PAPER.slug).metrics
    for arm in PAPER.arms:
        for metric, unit in metrics(smoke, arm).select("metric", "unit").unique().rows():
            assert declared[metric].unit == unit, (arm, metric)


def test_figures_are_drawn_and_examples_can_be_heard(smoke):
    results = smoke / "results" / "dmel" / VARIANT
    assert {path.stem for path in (results / "figures").glob("*.svg")} == {
        "rates",
        "spectrograms",
        "levels",
        "networks",
    }
    page = (results / "listening" / "index.html").read_text()
    for file in (results / "listening").glob("*.wav"):
        assert file.name in page
    # Two seconds of every example that the real run keeps.
    assert len(list((results / "listening").glob("*.wav"))) * (32_000 + 44) < 1_000_000


def test_rates_are_rate_times_channels_times_bits(smoke):
    def value(arm: str, metric: str) -> float:
        return metrics(smoke, arm).filter(pl.col("metric") == metric)["value"].item()

    assert value("dmel16", "bit_rate") == 16_000
    assert value("dmel4", "bit_rate") == 8_000
    assert value("dmel_low", "bit_rate") == 3_200
    assert value("dmel16", "worst_error") <= 0.50001
    assert value("dmel16", "coded_rate") > 0


def test_what_is_heard_after_levels_is_the_vocoders_sound_of_the_decoded_frames():
    torch.manual_seed(0)
    vocoder = MelVocoder(width=8, blocks=1).eval()
    grid = MelGrid(vocoder.spectra, 80, 40)
    waveform = torch.randn(1_000) * 0.1
    frames = vocoder.spectra(waveform[None])
    bins = fitted_bins(frames[0], 40, 4)
    with torch.no_grad():
        found = MelTokens(vocoder, grid, bins, 100)(waveform, "")
        expected = vocoder(bins.decode(bins.encode(frames)))[0, :1_000]
    assert torch.equal(found.waveform, expected)
    assert found.codes.shape == (13, 40)


@pytest.mark.parametrize(("hop", "channels"), [(200, 40), (200, 20), (80, 40)])
def test_frames_of_a_coarser_grid_come_back_on_the_vocoders(hop, channels):
    spectra = MelVocoder(width=8, blocks=1).spectra
    waveform = torch.sin(torch.arange(2_345) * 0.3) * 0.2
    grid = MelGrid(spectra, hop, channels)
    frames = grid.frames(waveform)
    assert frames.shape == (math.ceil(2_345 / hop), channels)
    assert grid.restored(frames, 2_345).shape == spectra(waveform[None])[0].shape


def test_rows_of_errors_have_the_rate_of_all_utterances_as_their_mean():
    heard, said = ["one two", "", "six six six"], ["one", "two two", "six"]
    rows = error_rows(heard, said)
    assert sum(rows) / 3 == pytest.approx(100 * error_rate(word_errors(heard, said)))


def test_noise_is_the_same_for_every_arm_and_has_the_ratio_asked_for(tmp_path):
    inputs = {}
    for name in ("fsdd-connected", "esc10"):
        (tmp_path / name).mkdir()
        standin.make(name, tmp_path / name)
        inputs[f"data/{name}"] = tmp_path / name
    params = EvaluateParams(sets=("digits", "noisy"), digits=4, noisy=3)
    stage = StageContext("evaluate", "x", "v", "a", 0, "smoke", params, inputs, tmp_path, tmp_path, tmp_path)
    sets = dict(heard_sets(stage))
    again = dict(heard_sets(replace(stage, seed=2)))
    assert len(sets["noisy"].waveforms) == 3
    for plain, noisy, other in zip(
        sets["digits"].waveforms, sets["noisy"].waveforms, again["noisy"].waveforms, strict=False
    ):
        assert torch.equal(noisy, other)
        ratio = plain.square().mean() / (noisy - plain).square().mean()
        assert 10 * ratio.log10() == pytest.approx(10, abs=0.01)


def test_another_string_says_something_else():
    texts = ["one", "one", "two", "one"]
    assert all(texts[place] != texts[other] for place, other in enumerate(others(texts)))


def test_strings_are_digits_and_nothing_else():
    assert digits_of("nine zero") == [9, 0]
    assert [digits_of(word)[0] for word in DIGITS] == list(range(10))
    with pytest.raises(StringError, match="'ten'"):
        digits_of("one ten")


def test_seeds_have_bases_of_their_own():
    assert [base_name("codec-base", seed) for seed in range(3)] == ["codec-base", "codec-base-s1", "codec-base-s2"]
    assert set(PAPER.variants[VARIANT].bases) >= {base_name("unit-vocoder", seed) for seed in range(3)}


def test_the_full_network_has_the_papers_number_of_parameters():
    params = resolve(PAPER, VARIANT, "richtts_dmel", "full", "train")
    with torch.device("meta"):
        model = construct(description(params, Tokens(params.bands, 16, 40.0), 1))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(PAPER.profiles["full"].expect["parameters"], rel=0.05)


def test_the_small_network_is_as_small_as_declared():
    params = resolve(PAPER, VARIANT, "richtts_dmel", "small", "train")
    model = build(**description(params, Tokens(40, 16, 40.0), 6)["arguments"])
    assert 350_000 < sum(parameter.numel() for parameter in model.parameters()) < 550_000


def test_reading_counts_errors_against_ones_own_text_and_against_another_strings(smoke, tmp_path, monkeypatch):
    def right(_, batch, longest):
        return [row[:count].tolist() for row, count in zip(batch.text, batch.text_counts, strict=True)]

    monkeypatch.setattr(ParallelChannelLM, "transcribe", right)
    evaluate(stage_of(smoke, "evaluate", "richasr_dmel", tmp_path))
    found = rates(tmp_path, "asr_wer")
    assert found["speech=own"] == 0
    assert found["speech=other"] > 0


def test_a_string_that_ends_at_once_is_silence(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(
        ParallelChannelLM, "speak", lambda self, batch, *_, **__: [batch.text.new_zeros(0, 40)] * len(batch.text)
    )
    evaluate(stage_of(smoke, "evaluate", "richtts_dmel", tmp_path))
    assert set(rates(tmp_path, "tts_wer")) == {"text=given", "text=removed"}
    assert rates(tmp_path, "generated_seconds") == {"": 0}


def test_a_text_that_is_removed_is_not_told_to_the_network(smoke, tmp_path, monkeypatch):
    counts = []

    def speak(self, batch, *_, **__):
        counts.append(batch.text_counts.sum().item())
        return [batch.text.new_zeros(2, 40)] * len(batch.text)

    monkeypatch.setattr(ParallelChannelLM, "speak", speak)
    evaluate(stage_of(smoke, "evaluate", "richtts_dmel", tmp_path))
    assert counts[0] > 0 == counts[-1]


def test_a_batch_has_the_lengths_texts_and_speakers_of_its_strings():
    frames = [torch.full((count, 3), count) for count in (5, 2, 4)]
    strings = Strings(None, frames, [[1], [2, 3], [4]], torch.tensor([1, 0, 1]), ["a", "b"])
    batch = strings.batch([2, 1])
    assert batch.frame_counts.tolist() == [4, 2]
    assert batch.text_counts.tolist() == [1, 2]
    assert batch.text.tolist() == [[4, 0], [2, 3]]
    assert batch.speakers.tolist() == [[0, 1], [1, 0]]
    assert batch.frames[1].tolist() == [[2, 2, 2]] * 2 + [[0, 0, 0]] * 2


def test_levels_of_networks_span_all_that_the_training_strings_have(smoke, tmp_path):
    stage = stage_of(smoke, "train", "richasr_dmel", tmp_path)
    tokenization = Tokenization(stage, train_speech(stage))
    frames = torch.cat([tokenization.grid.frames(wave) for wave in train_speech(stage).waveforms()])
    assert tokenization.bins.lower[0] == frames.min()
    assert tokenization.bins.upper[0] == frames.max()


@pytest.mark.parametrize("arm", ["richasr_dmel", "richasr_kmeans", "richtts_dmel", "richtts_dmel_nomask"])
def test_networks_do_not_see_what_their_arm_hides(smoke, tmp_path, monkeypatch, arm):
    stage = stage_of(smoke, "train", arm, tmp_path)
    asked = []
    for name in ("drawn_spans", "drawn_bands"):
        draw = getattr(train_module, name)
        monkeypatch.setattr(train_module, name, lambda *given, _draw=draw: asked.append(given) or _draw(*given))
    train_module.train(stage)
    (_, _, share, span, _), (_, _, bands, _) = asked[:2]
    params = stage.params
    expected = {
        "richasr_dmel": (params.read_share, params.read_span, params.read_bands),
        "richasr_kmeans": (params.read_share, params.read_span, 0),
        "richtts_dmel": (0.35, params.history_span, 0),
        "richtts_dmel_nomask": (0, params.history_span, 0),
    }
    assert (share, span, bands) == expected[arm]


@pytest.mark.parametrize(("understood", "channels"), [(0, 40), (1, 20)])
def test_levels_at_the_codecs_rate_are_those_that_the_judge_understands_better(smoke, tmp_path, understood, channels):
    stage = stage_of(smoke, "evaluate", "dmel_low", tmp_path)
    texts = read_speech(stage.inputs["data/fsdd-connected"], "dev", stage.params.dev).texts

    class Judge:
        asked = -1

        def transcribe(self, sounds):
            self.asked += 1
            return texts if self.asked == understood else [""] * len(texts)

    assert chosen_tokens(stage, Judge()).channels == channels


def test_values_outside_the_range_are_counted_apart_from_the_rounding_error(smoke):
    table = metrics(smoke, "dmel16_percentile")
    table = table.filter(pl.col("metric").is_in(["worst_error", "outside_share"]))
    values = dict(table.select("metric", "value").rows())
    assert 0 < values["outside_share"] < 0.1
    assert values["worst_error"] <= 0.50001


def test_levels_are_coded_plainly_and_against_the_frame_before():
    vocoder = MelVocoder(width=8, blocks=1)
    bins = fitted_bins(torch.rand(50, 40), 40, 4)
    steady = torch.arange(40).remainder(16).expand(200, 40)
    coded = MelTokens(vocoder, MelGrid(vocoder.spectra, 80, 40), bins, 100).coded_bits(steady)
    assert coded.plain == 8 * len(range_coding.encode(steady.numpy(), [16] * 40))
    assert coded.after_previous == 8 * len(level_coding.encode(steady.numpy(), 16))


def test_units_are_rendered_as_the_first_stream_for_the_speaker_that_is_told(smoke, tmp_path):
    stage = stage_of(smoke, "evaluate", "ssl_kmeans", tmp_path)
    tokens = unit_tokens(stage, stage.params.stream)
    told = []
    tokens.unit_vocoder.register_forward_pre_hook(lambda _, given: told.append(given))
    units = torch.tensor([[3], [1], [1]])
    tokens.rendered(units, tokens.unit_vocoder.speakers[1])
    streams, speaker = told[0]
    assert streams[0, :, 0].tolist() == [3, 1, 1]
    assert (streams[..., 1:] == -1).all()
    assert speaker.tolist() == [1]


def test_an_utterance_that_made_a_speakers_mean_is_recognised_as_this_speakers(smoke, tmp_path):
    stage = stage_of(smoke, "evaluate", "natural", tmp_path, enrolled=1)
    known = read_speech(stage.inputs["data/fsdd-connected"], "train")
    first = {speaker: row for row, speaker in reversed(list(enumerate(known.speakers)))}
    assert len(first) > 1
    voices = Speakers(stage)
    vectors = voices.vectors([known.waveform(row) for row in first.values()])
    assert voices.recognised(vectors, list(first)) == [100] * len(first)
    assert voices.recognised(vectors, list(first)[::-1]).count(100) <= len(first) % 2


def test_noise_comes_from_clips_that_no_training_heard(smoke, tmp_path, monkeypatch):
    splits = []
    clips = esc10.clips
    monkeypatch.setattr(esc10, "clips", lambda folder, split: splits.append(split) or clips(folder, split))
    assert "noisy" in dict(heard_sets(stage_of(smoke, "evaluate", "dmel16", tmp_path)))
    assert splits == ["test"]
