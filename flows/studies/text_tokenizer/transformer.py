"""A transformer over the tokens of a Markov source: trained and watched all along, then measured on new text."""

from __future__ import annotations

import dataclasses
import importlib
import json

import numpy as np
import polars as pl
import torch

from components.analysis.token_behaviour import SERIES, Probe, WatchedModel, Windows, schedule
from components.data.markov import Chain
from components.data.switching_chain import character_entropy
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from components.training.weights import load_weights, save_weights
from flows.studies.context import StageContext
from flows.studies.text_tokenizer.looks import Looks
from flows.studies.text_tokenizer.markov_sources import chain_of, draw_text, encode, tokenizer_of
from flows.studies.text_tokenizer.params import EvaluateParams, TrainParams

TOKENIZER_FILE, CONFIG_FILE, WEIGHTS_FILE = "tokenizer.json", "config.json", "model.safetensors"
HALF, QUARTER = 0.5, 0.25
_MODULES = {"characters": "max_prefix", "lzw": "lzw", "bpe": "bpe"}


def build(params: TrainParams, vocabulary_size: int, context: int) -> CausalLM:
    """Build the model of an arm, on torch's default device."""
    return CausalLM(CausalLMConfig(vocabulary_size, context, params.width, params.layers, params.heads))


def train_transformer(stage: StageContext) -> None:
    """Train on text that is never repeated; the windows of all arms cover equally many characters on average.

    The seed decides the texts, the initial weights and thereby everything: seeds are independent replicates.
    """
    params: TrainParams = stage.params
    chain = chain_of(params.source, stage.seed)
    tokenizer = tokenizer_of(params, chain, stage.seed)
    lengths = np.array([len(token) for token in tokenizer.vocabulary])
    context = window_tokens(params, chain, tokenizer, stage.seed)
    windows = training_windows(params, chain, tokenizer, context, stage.seed)
    codes = draw_text(chain, params.held_out_characters, stage.seed, "held out")
    held_out = Windows.of(chain, codes, encode(tokenizer, chain, codes), lengths, context)
    looks = schedule(params.steps, params.early_steps, params.early_every, params.late_every)
    probe = Probe(held_out, windows, len(lengths), params.startup_characters, stage.device)

    torch.manual_seed(derive_seed(stage.seed, 1))
    watched = WatchedModel(build(params, len(lengths), context), probe, looks)
    tokens = torch.from_numpy(windows.tokens).unflatten(0, (params.steps, params.batch))
    curves = fit(
        watched,
        lambda step, generator: tokens[step],
        lambda watched, batch, generator: (watched.model.loss(batch), {}),
        Optimisation(params.steps, params.learning_rate, params.warmup_steps, weight_decay=params.weight_decay),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        after_step=lambda watched, step, generator: watched.look(step + 1),
        units={"loss": "nats/token"},
    )
    covered = windows.lengths.reshape(params.steps, -1).sum(1).cumsum()
    for step, row in zip(looks, watched.trace.tolist(), strict=True):
        curves.add("characters", step, covered[step - 1], unit="characters")
        for (name, unit), value in zip(SERIES.items(), row, strict=True):
            curves.add(name, step, value, unit=unit)
    tokenizer.save(stage.output / TOKENIZER_FILE)
    config = {"tokenizer": params.tokenizer, "model": dataclasses.asdict(watched.model.config)}
    (stage.output / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n")
    save_weights(watched.model, stage.output / WEIGHTS_FILE)
    curves.write(stage.output)


def window_tokens(params: TrainParams, chain: Chain, tokenizer, seed: int) -> int:
    """Return how many tokens cover the wanted characters on average, measured on the dictionary's own text."""
    codes = draw_text(chain, params.tokenizer_characters, seed, "dictionary")
    return max(2, round(params.window_characters * len(encode(tokenizer, chain, codes)) / len(codes)))


def training_windows(params: TrainParams, chain: Chain, tokenizer, context: int, seed: int) -> Windows:
    """Draw one long text, encode it as a whole and cut it by tokens into the windows of all steps, in order."""
    lengths = np.array([len(token) for token in tokenizer.vocabulary])
    wanted = params.steps * params.batch * context
    characters = params.steps * params.batch * params.window_characters
    while True:
        # A little more than on average, and more again should the draw be unlucky.
        characters = characters + characters // 50 + 1000
        codes = draw_text(chain, characters, seed, "train")
        tokens = encode(tokenizer, chain, codes)
        if len(tokens) >= wanted:
            return Windows.of(chain, codes, tokens[:wanted], lengths, context)


def measure_transformer(stage: StageContext, table: MetricTable) -> None:
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
