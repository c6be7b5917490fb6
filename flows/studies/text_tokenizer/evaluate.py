"""Measure an arm: dictionaries of a real text, unigram losses on Markov sources, or a trained transformer."""

from __future__ import annotations

import math

import numpy as np

from components.language.unigram_lm import UnigramModel
from components.metrics.tables import MetricTable
from flows.studies.context import StageContext
from flows.studies.text_tokenizer import markov_losses
from flows.studies.text_tokenizer.params import EvaluateParams
from flows.studies.text_tokenizer.sources import split_text, text_directory, tokenizer_file, tokenizer_module
from flows.studies.text_tokenizer.transformer import measure_transformer


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm."""
    table = MetricTable()
    measure = {
        "text": text_metrics,
        "unigram": markov_losses.measure,
        "oracle": markov_losses.measure_oracle,
        "transformer": measure_transformer,
    }
    measure[stage.params.experiment](stage, table)
    table.write(stage.output)


def text_metrics(stage: StageContext, table: MetricTable) -> None:
    """Measure every vocabulary size on the test split.

    The unigram model is fitted to neither the text that the dictionary was learned from nor the text that it predicts:
    the halves of the test split (cut at a line break) take turns.
    """
    params: EvaluateParams = stage.params
    text = split_text(text_directory(stage), params.test_split)
    middle = text.find("\n", len(text) // 2) + 1 or len(text) // 2
    halves = (text[:middle], text[middle:])
    module = tokenizer_module(params.tokenizer)
    for done, size in enumerate(params.sizes, start=1):
        tokenizer = module.load(stage.inputs["train"] / tokenizer_file(size))
        encoded = [np.array(tokenizer.encode(half)) for half in halves]
        nats = sum(
            UnigramModel.fit(fitted, len(tokenizer.vocabulary)).token_nats(predicted).sum() + math.log(len(half))
            for fitted, predicted, half in zip(encoded, encoded[::-1], halves[::-1], strict=True)
        )
        measured = (
            ("nats_per_character", nats / len(text), "nats/character", "characters"),
            ("bits_per_byte", nats / math.log(2) / len(text.encode()), "bits/byte", "bytes"),
            ("tokens_per_character", sum(map(len, encoded)) / len(text), "tokens/character", "characters"),
            ("dictionary_size", len(tokenizer.vocabulary), "tokens", ""),
        )
        for metric, value, unit, normaliser in measured:
            table.add(metric, value, unit=unit, at={"vocabulary": size}, samples=len(text), normaliser=normaliser)
        stage.progress(done, len(params.sizes))
