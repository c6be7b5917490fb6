"""Evaluate an arm of the paper: a trained transformer, unigram losses on Markov sources, or a real text."""

from __future__ import annotations

import importlib
import json

import numpy as np
import polars as pl

from components.data.switching_chain import character_entropy
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.metrics.tables import MetricTable
from components.training.weights import load_weights
from flows.studies.context import StageContext
from flows.studies.text_tokenizer.evaluate import text_metrics
from flows.studies.text_tokenizer.tokenization_theory import unigram_losses
from flows.studies.text_tokenizer.tokenization_theory.chains import chain_of, draw_text, encode
from flows.studies.text_tokenizer.tokenization_theory.params import EvaluateParams
from flows.studies.text_tokenizer.tokenization_theory.probe import SERIES, Probe, Windows
from flows.studies.text_tokenizer.tokenization_theory.train import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    training_windows,
)

HALF, QUARTER = 0.5, 0.25
_MODULES = {"characters": "max_prefix", "lzw": "lzw", "bpe": "bpe"}


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm."""
    table = MetricTable()
    if stage.params.experiment == "text":
        text_metrics(stage, table)
    elif stage.params.experiment == "unigram":
        unigram_losses.measure(stage, table)
    elif stage.params.experiment == "oracle":
        unigram_losses.measure_oracle(stage, table)
    else:
        _transformer(stage, table)
    table.write(stage.output)


def _transformer(stage: StageContext, table: MetricTable) -> None:
    """Measure a trained transformer on new text, and read off its curves when it got how far."""
    params: EvaluateParams = stage.params
    chain, directory = chain_of(params.source, stage.seed), stage.inputs["train"]
    module = importlib.import_module(f"components.tokenizers.text.{_MODULES[params.tokenizer]}")
    tokenizer = module.load(directory / TOKENIZER_FILE)
    model = CausalLM(CausalLMConfig(**json.loads((directory / CONFIG_FILE).read_text())["model"]))
    load_weights(model, directory / WEIGHTS_FILE)
    model.eval().to(stage.device)

    lengths = np.array([len(token) for token in tokenizer.vocabulary])
    context = model.config.context
    windows = training_windows(params, chain, tokenizer, context, stage.seed)
    codes = draw_text(chain, params.final_characters, stage.seed, "final")
    held_out = Windows.of(chain, codes, encode(tokenizer, chain, codes), lengths, context)
    probe = Probe(held_out, windows, len(lengths), params.startup_characters, stage.device)
    measured = dict(zip(SERIES, probe.measure(model).tolist(), strict=True))
    rate, unigram = chain.entropy_rate(), character_entropy(chain)

    def add(metric: str, value: float, unit: str, normaliser: str = "", samples: int = probe.characters) -> None:
        table.add(metric, value, unit=unit, samples=samples, normaliser=normaliser)

    for name, unit in SERIES.items():
        add(name, measured[name], unit, "characters" if name == "nats_per_character" else "")
    loss = measured["nats_per_character"]
    add("gap", (loss - rate) / (unigram - rate), "")
    add("relative_excess", loss / rate - 1, "")
    add("tokens_per_character", held_out.tokens.size / held_out.lengths.sum(), "tokens/character", "characters")

    curves = pl.read_parquet(directory / "curves.parquet")
    looks = Looks.of(curves, rate, unigram)
    covered = int(windows.lengths.sum())
    watched = params.held_out_characters
    add("characters_to_half_gap", looks.characters_until(HALF, covered), "characters", samples=watched)
    add("characters_to_quarter_gap", looks.characters_until(QUARTER, covered), "characters", samples=watched)
    add("training_characters", covered, "characters", samples=windows.tokens.size)
    least = int(looks.kl_unigram.argmin())
    add("early_kl_unigram", looks.kl_unigram[least], "nats/token", samples=watched)
    add("early_kl_unigram_step", looks.steps[least], "steps", samples=watched)


class Looks:
    """What was seen of a training: gap and behaviour after growing numbers of training characters.

    Attributes:
        steps, characters, gap, kl_unigram, kl_truth: One value per look.
    """

    def __init__(self, series: dict[str, np.ndarray], rate: float, unigram: float) -> None:
        self.steps, self.characters = series["step"], series["characters"]
        self.gap = (series["nats_per_character"] - rate) / (unigram - rate)
        self.kl_unigram, self.kl_truth = series["kl_unigram"], series["kl_truth"]

    @classmethod
    def of(cls, curves: pl.DataFrame, rate: float, unigram: float) -> Looks:
        """Read the curves that a training wrote.

        Args:
            curves: Its `curves.parquet`.
            rate: Entropy rate of the source.
            unigram: Entropy of one of its characters.
        """
        wanted = curves.filter(pl.col("series").is_in(["characters", *SERIES])).sort("step")
        parts = {name: part for (name,), part in wanted.group_by("series", maintain_order=True)}
        series = {name: part["value"].to_numpy() for name, part in parts.items()}
        return cls({"step": parts["characters"]["step"].to_numpy(), **series}, rate, unigram)

    def characters_until(self, gap: float, budget: float) -> float:
        """Return the training characters at the first look with a smaller gap, the budget where there is none."""
        below = np.flatnonzero(self.gap < gap)
        return float(self.characters[below[0]]) if len(below) else float(budget)

    def gap_at(self, characters: float) -> float:
        """Return the gap at the first look after at least so many training characters, the last one's if none is."""
        place = min(int(np.searchsorted(self.characters, characters)), len(self.gap) - 1)
        return float(self.gap[place])
