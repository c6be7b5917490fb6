"""Read a trained token model back, and put a way of asking it for characters around it."""

from __future__ import annotations

import importlib
import json
from typing import Any

from components.language.byte_conversion import (
    CoverCorrection,
    DirectPrompting,
    MaxPrefixCorrection,
    TokenModel,
    Truncated,
)
from components.tokenizers.text.validity import Validity
from components.training.weights import load_weights
from flows.studies.context import StageContext
from flows.studies.decoding.params import EvaluateParams
from flows.studies.decoding.sources import tokenizer_module

Predictor = DirectPrompting | MaxPrefixCorrection | CoverCorrection


def trained_tokenizer(stage: StageContext) -> Any:
    """Read the tokenizer of the arm whose model is evaluated."""
    return tokenizer_module(stage.params.tokenizer).load(stage.inputs["train"] / "tokenizer.json")


def trained_model(stage: StageContext) -> Any:
    """Read the trained model, in double precision, so that rounding adds nothing to ratios of small probabilities."""
    module = importlib.import_module("components.language.causal_lm")
    directory = stage.inputs["train"]
    config = json.loads((directory / "config.json").read_text())["model"]
    model = module.CausalLM(module.CausalLMConfig(**config))
    load_weights(model, directory / "model.safetensors")
    return model.double().eval().to(stage.device)


def predictor(params: EvaluateParams, model: TokenModel, tokenizer: Any, validity: Validity) -> Predictor:
    """Return the arm's way from tokens to characters."""
    if params.truncate:
        model = Truncated(model, validity)
    if params.query == "direct":
        return DirectPrompting(model, tokenizer)
    if params.query == "cover":
        return CoverCorrection(model, validity)
    return MaxPrefixCorrection(model, tokenizer)
