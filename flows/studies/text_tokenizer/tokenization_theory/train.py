"""Train a transformer on the tokens of a Markov source, watched all along; or the dictionaries of a real text."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import torch

from components.data.markov import Chain
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from components.training.weights import save_weights
from flows.studies.context import StageContext
from flows.studies.text_tokenizer.tokenization_theory.chains import chain_of, draw_text, encode, tokenizer_of
from flows.studies.text_tokenizer.tokenization_theory.params import TrainParams
from flows.studies.text_tokenizer.tokenization_theory.probe import SERIES, Probe, WatchedModel, Windows, schedule
from flows.studies.text_tokenizer.train import train as learn_dictionaries

TOKENIZER_FILE, CONFIG_FILE, WEIGHTS_FILE = "tokenizer.json", "config.json", "model.safetensors"


def train(stage: StageContext) -> None:
    """Write the tokenizer, the model, its curves and what was seen of it; or the dictionaries of a real text.

    The seed decides the texts, the initial weights and thereby everything: seeds are independent replicates.
    """
    if stage.params.experiment == "text":
        learn_dictionaries(stage)
    else:
        train_transformer(stage)


def build(params: TrainParams, vocabulary_size: int, context: int) -> CausalLM:
    """Build the model of an arm, on torch's default device."""
    return CausalLM(CausalLMConfig(vocabulary_size, context, params.width, params.layers, params.heads))


def train_transformer(stage: StageContext) -> None:
    """Train on text that is never repeated; the windows of all arms cover equally many characters on average."""
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
