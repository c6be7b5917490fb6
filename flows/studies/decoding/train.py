"""Train a causal language model on encoded texts."""

from __future__ import annotations

import json

import torch

from components.data.markov import read_chain
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from components.training.weights import save_weights
from flows.studies.context import StageContext
from flows.studies.decoding.params import TrainParams
from flows.studies.decoding.sources import (
    ChainWindows,
    TextWindows,
    chain_tokenizer,
    part,
    shared,
    stream,
    text_directory,
    text_tokenizer,
)

TOKENIZER_FILE, CONFIG_FILE, WEIGHTS_FILE = "tokenizer.json", "config.json", "model.safetensors"


def model_settings(params: TrainParams, vocabulary_size: int) -> dict[str, int | bool]:
    """Return what the study decides of a model's CausalLMConfig; the rest is as it is by default."""
    return {
        "vocabulary_size": vocabulary_size,
        "context": params.context,
        "width": params.width,
        "layers": params.layers,
        "heads": params.heads,
        "tied": params.tied,
    }


def build(params: TrainParams, vocabulary_size: int) -> CausalLM:
    """Build the model of an arm, on torch's default device."""
    return CausalLM(CausalLMConfig(**model_settings(params, vocabulary_size)))


def train(stage: StageContext) -> None:
    """Write the tokenizer, the model and its curves.

    The seed decides the chain, the texts, the initial weights and the order of windows: seeds are independent
    replicates.
    """
    params: TrainParams = stage.params
    if params.source == "chain":
        chain = read_chain(stage.inputs["data/markov"], stage.seed)
        tokenizer = chain_tokenizer(params, chain, stage.seed)
        generator = stream(stage.seed, "train")
        windows = ChainWindows(chain, tokenizer, shared(params.characters, params), params.context, generator)
    else:
        directory = text_directory(stage)
        tokenizer = text_tokenizer(params, directory)
        windows = TextWindows(tokenizer, part(directory, "train"), params.context)

    torch.manual_seed(derive_seed(stage.seed, 1))
    settings = model_settings(params, len(tokenizer.vocabulary))
    model = CausalLM(CausalLMConfig(**settings))
    curves = fit(
        model,
        lambda step, generator: windows.draw(params.batch, generator),
        lambda model, batch, generator: (model.loss(batch), {}),
        Optimisation(shared(params.steps, params), params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/token"},
    )
    tokenizer.save(stage.output / TOKENIZER_FILE)
    config = {"tokenizer": params.tokenizer, "model": settings}
    (stage.output / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n")
    save_weights(model, stage.output / WEIGHTS_FILE)
    curves.write(stage.output)
