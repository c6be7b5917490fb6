"""Training a transformer on a Markov source: its windows, and a training that was cut off."""

import polars as pl
import pytest

from components.training.loop import fit
from flows.studies.context import StageContext
from flows.studies.text_tokenizer import transformer
from flows.studies.text_tokenizer.markov_sources import chain_of, draw_text, spell, tokenizer_of
from flows.studies.text_tokenizer.params import TrainParams
from flows.studies.text_tokenizer.train import train


def test_windows_of_all_tokenizers_cover_as_many_characters_and_all_text_is_new():
    for tokenizer, size in (("characters", 2), ("bpe", 20), ("lzw", 20)):
        params = TrainParams(
            experiment="transformer", tokenizer=tokenizer, vocabulary_size=size, steps=20, tokenizer_characters=20_000
        )
        chain = chain_of("k2", 0)
        rule = tokenizer_of(params, chain, 0)
        context = transformer.window_tokens(params, chain, rule, 0)
        windows = transformer.training_windows(params, chain, rule, context, 0)
        assert windows.tokens.shape == (20 * 16, context)
        assert windows.lengths.sum() == pytest.approx(20 * 16 * 256, rel=0.02)
        spelled = "".join(rule.vocabulary[token] for token in windows.tokens.ravel().tolist())
        assert spelled == spell(chain, draw_text(chain, 20 * 16 * 256 * 51 // 50 + 1000, 0, "train"))[: len(spelled)]


def tiny(tmp_path, name: str) -> StageContext:
    params = TrainParams(
        experiment="transformer", tokenizer="bpe", vocabulary_size=8, tokenizer_characters=2000, window_characters=30,
        batch=2, steps=110, width=8, layers=1, heads=2, held_out_characters=400, early_steps=20, late_every=30,
    )  # fmt: skip
    for part in ("run", "log"):
        (tmp_path / name / part).mkdir(parents=True)
    (tmp_path / "checkpoint").mkdir(exist_ok=True)
    checkpoint = tmp_path / ("checkpoint" if name != "whole" else "none")
    checkpoint.mkdir(exist_ok=True)
    return StageContext(
        "train", "tokenization-theory", "chains", "arm", 3, "small", params, {},
        tmp_path / name / "run", tmp_path / name / "log", checkpoint,
    )  # fmt: skip


def test_a_training_cut_off_and_resumed_is_watched_as_one_that_never_stopped(tmp_path, monkeypatch):
    whole = tiny(tmp_path, "whole")
    train(whole)

    class CutOff(Exception):
        pass

    def cut_off(model, draw_batch, *arguments, **settings):
        def draw(step, generator):
            if step == 70:
                raise CutOff
            return draw_batch(step, generator)

        return fit(model, draw, *arguments, **settings, checkpoint_seconds=0)

    monkeypatch.setattr(transformer, "fit", cut_off)
    with pytest.raises(CutOff):
        train(tiny(tmp_path, "first"))
    monkeypatch.setattr(transformer, "fit", lambda *arguments, **settings: fit(*arguments, **settings))
    resumed = tiny(tmp_path, "second")
    train(resumed)
    for file in ("curves.parquet", "model.safetensors", "tokenizer.json"):
        assert (resumed.output / file).read_bytes() == (whole.output / file).read_bytes()
    curves = pl.read_parquet(whole.output / "curves.parquet")
    assert curves.filter(pl.col("series") == "characters")["step"].to_list() == [5, 10, 15, 20, 50, 80, 110]
    assert curves["value"].is_finite().all()
