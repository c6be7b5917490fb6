"""The recipes of what hears speech, on tones that stand for it; each builds on those before."""

from pathlib import Path

import polars as pl
import pytest
import torch

from components.audio.mel_vocoder import MelVocoder
from components.bases import load_model, save_base, specification
from components.data.speech import read_speech
from components.speech.judge import load_judge
from components.training.determinism import reset
from flows.declarations.workspace import Workspace
from flows.studies.bases import ctc_judge, speaker_judge, speech_units, ssl_encoder, unit_vocoder, utterances
from flows.studies.bases.ctc_judge_params import Params as JudgeParams
from flows.studies.bases.speaker_judge_params import Params as SpeakerParams
from flows.studies.bases.speech_units_params import Params as UnitParams
from flows.studies.bases.ssl_encoder_params import Params as EncoderParams
from flows.studies.bases.unit_vocoder_params import Params as VocoderParams
from flows.studies.context import StageContext
from tests.support import tone_speech

ROOT = Path(__file__).parents[4]
JUDGE = {
    "channels": 16, "hidden": 16, "batch_size": 4, "steps": 3, "warmup_steps": 1, "resynthesis_iterations": 2,
    "beams": 4,
}  # fmt: skip
SPEAKER = {"channels": 8, "width": 4, "batch_size": 4, "steps": 3, "seconds": 0.5}
ENCODER = {
    "width": 16, "layers": 2, "heads": 2, "feed_forward": 32, "position_kernel": 7, "codes": 6, "target_layer": 2,
    "first_steps": 2, "second_steps": 3, "batch_size": 4, "seconds": 0.5, "denoise": True,
}  # fmt: skip
UNITS = {"layers": (1, 2), "codes": (4, 8), "stored_layers": (2,)}
VOCODER = {"streams": ((2, 8), (1, 4)), "width": 8, "blocks": 1, "steps": 3, "batch_size": 4, "seconds": 0.5}
RECIPES = {
    "ctc-judge": (ctc_judge, JudgeParams, JUDGE),
    "speaker-judge": (speaker_judge, SpeakerParams, SPEAKER),
    "ssl-base": (ssl_encoder, EncoderParams, ENCODER),
    "speech-units": (speech_units, UnitParams, UNITS),
    "unit-vocoder": (unit_vocoder, VocoderParams, VOCODER),
}


def run(name, inputs, root, seed=0, **settings) -> StageContext:
    recipe, params, small = RECIPES[name]
    for directory in ("run", "log", "checkpoint"):
        (root / directory).mkdir(parents=True)
    stage = StageContext(
        "base", name, "", "", seed, "small", params(**(small | settings)), inputs,
        root / "run", root / "log", root / "checkpoint",
    )  # fmt: skip
    reset(0)
    recipe.train(stage)
    return stage


def values(stage) -> dict[str, float]:
    metrics = pl.read_parquet(stage.output / "metrics.parquet").group_by("metric").agg(pl.col("value").mean())
    return dict(metrics.select("metric", "value").iter_rows())


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return tone_speech.make_all(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def bases(speech, tmp_path_factory):
    """Every base, made of the ones before it."""
    root, stages = tmp_path_factory.mktemp("bases"), {}
    vocoder = {"width": 8, "blocks": 1}
    (root / "mel-vocoder").mkdir()
    torch.manual_seed(0)
    save_base(
        root / "mel-vocoder", MelVocoder(**vocoder), specification("components.audio.mel_vocoder", **vocoder), "card"
    )
    needs = {"speech-units": ("ssl-base",), "unit-vocoder": ("speech-units", "mel-vocoder", "ctc-judge")}
    for name in RECIPES:
        found = {
            f"bases/{need}": stages[need].output if need in stages else root / need for need in needs.get(name, ())
        }
        stages[name] = run(name, speech | found, root / name)
    return stages


def test_every_recipe_writes_a_model_a_card_and_its_metrics(bases):
    expected = {
        "ctc-judge": {f"{rate}_{name}" for rate in ("wer", "cer") for name in ("digits", "sentences", "held_out")},
        "speaker-judge": {"eer", "eer_digits", "eer_sentences", "eer_held_out"},
        "ssl-base": {"phone_information", "phone_purity", "phone_information_gain"},
        "speech-units": {"normalised_information", "phone_purity", "usage", "perplexity"},
        "unit-vocoder": {"mel_error", "wer_mel", "wer_units"},
    }
    for name, stage in bases.items():
        assert set(values(stage)) == expected[name]
        assert f"# {name}" in (stage.output / "card.md").read_text()
        assert isinstance(load_model(stage.output), torch.nn.Module)
        if name != "speech-units":
            assert (stage.output / "curves.parquet").is_file()


def test_the_judge_reads_what_the_recipe_measured(bases, speech):
    judge = load_judge(bases["ctc-judge"].output)
    assert {"zero", "seven", *tone_speech.WORDS} == set(judge.words) - {
        "three", "four", "five", "eight",
    }  # fmt: skip
    heard = judge.transcribe(read_speech(speech["data/fsdd-connected"], "test").waveforms())
    assert len(heard) == 6
    assert all(word in judge.words for text in heard for word in text.split())


def test_stored_units_are_those_that_the_tokenizer_gives(bases, speech):
    tokenizer = load_model(bases["speech-units"].output)
    spoken = read_speech(speech["data/espeak-sent"], "test")
    stored = speech_units.stored_units(bases["speech-units"].output, "espeak-sent", 2, 8)
    assert len(stored) == 12 + 2 + 6 + 4
    for row, name in enumerate(spoken.names):
        wave = spoken.waveform(row)
        units = tokenizer.only([(2, 8)]).encode(wave[None], torch.tensor([len(wave)]))[0, :, 0]
        assert stored[name] == units.tolist()


def test_two_trainings_of_the_encoder_go_into_one_curve_table_under_two_names(bases):
    curves = pl.read_parquet(bases["ssl-base"].output / "curves.parquet")
    last = dict(curves.group_by("series").agg(pl.col("step").max()).iter_rows())
    assert last["iteration_1_masked_accuracy"] == 2
    assert last["iteration_2_loss"] == 3


def test_until_it_is_trained_the_judge_hears_training_utterances_only(speech, tmp_path, monkeypatch):
    events, fit = [], ctc_judge.fit

    def heard(folder, split, count=None):
        events.append(split)
        return read_speech(folder, split, count)

    def fitted(*arguments, **settings):
        events.append("fit")
        return fit(*arguments, **settings)

    for module in (ctc_judge, utterances):
        monkeypatch.setattr(module, "read_speech", heard)
    monkeypatch.setattr(ctc_judge, "fit", fitted)
    run("ctc-judge", speech, tmp_path)
    place = events.index("fit")
    assert set(events[:place]) == {"train"}
    assert set(events[place + 1 :]) == {"test", "held_out"}


def test_judges_are_built_on_no_system_and_have_the_gates_of_their_definition():
    bases = Workspace.load(ROOT).bases
    assert bases["ctc-judge"].bases == bases["speaker-judge"].bases == ()
    bars = {
        "ctc-judge": {"wer_digits": 0.05, "wer_sentences": 0.10, "wer_held_out": 0.25},
        "speaker-judge": {"eer": 0.10},
        "unit-vocoder": {"wer_units": 0.40, "wer_mel": 0.10},
    }
    for name, expected in bars.items():
        assert {gate.metric: gate.below for gate in bases[name].gates} == expected
    for seed, suffix in enumerate(("", "-s1", "-s2")):
        base = bases[f"unit-vocoder{suffix}"]
        assert base.seed == seed
        assert f"mel-vocoder{suffix}" in base.bases


def curves(stage) -> dict[str, list[float]]:
    frame = pl.read_parquet(stage.output / "curves.parquet").sort("step")
    return {name: frame.filter(series=name)["value"].to_list() for name in frame["series"].unique()}


def test_an_encoder_learns_from_hidden_and_from_open_frames_with_their_weights(speech, tmp_path):
    found = curves(run("ssl-base", speech, tmp_path / "both", masked_weight=0.25))
    for iteration in (1, 2):
        loss, masked, opened = (found[f"iteration_{iteration}_{name}"] for name in ("loss", "masked_loss", "open_loss"))
        assert min(opened) > 0
        assert loss == pytest.approx([0.25 * one + 0.75 * other for one, other in zip(masked, opened, strict=True)])
    # Where every frame is hidden, no open one is left.
    hidden = curves(run("ssl-base", speech, tmp_path / "hidden", mask_start=1.0))
    assert hidden["iteration_1_open_loss"] == [0.0] * len(hidden["iteration_1_loss"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ctc-judge", "ssl-base", "speaker-judge"])
def test_training_twice_gives_the_same_bytes(name, bases, speech, tmp_path):
    again = run(name, speech, tmp_path)
    for file in ("model.safetensors", "config.json", "metrics.parquet", "curves.parquet", "card.md"):
        assert (again.output / file).read_bytes() == (bases[name].output / file).read_bytes()


@pytest.mark.slow
def test_the_judge_learns_to_read_tones(tmp_path):
    speech = tone_speech.make_all(tmp_path / "speech", count=24)
    small = {"channels": 32, "hidden": 32, "batch_size": 8, "steps": 500, "warmup_steps": 20, "dropout": 0.0}
    stage = run("ctc-judge", speech, tmp_path / "judge", learning_rate=1e-2, **small)
    found = values(stage)
    # Also the voices that no training heard, word by word and letter by letter.
    assert max(found.values()) < 0.2


@pytest.mark.slow
def test_the_speaker_judge_learns_to_tell_pitches_apart(speech, tmp_path):
    stage = run("speaker-judge", speech, tmp_path, steps=80, learning_rate=1e-2)
    assert values(stage)["eer_digits"] < 0.2


@pytest.mark.slow
def test_masked_frames_are_predicted_and_units_name_phonemes(speech, tmp_path):
    stage = run("ssl-base", speech, tmp_path, first_steps=60, second_steps=200, learning_rate=5e-3, denoise=False)
    curves = pl.read_parquet(stage.output / "curves.parquet").filter(pl.col("series") == "iteration_2_masked_accuracy")
    assert curves.sort("step")["value"][-1] > 0.4
    information = pl.read_parquet(stage.output / "metrics.parquet").filter(pl.col("metric") == "phone_information")
    assert information["value"].min() > 0.5
