"""Sentence encoders of the Hub that are no BERT: RoBERTa's and MPNet's layouts, read into `SentenceEncoder`.

    roberta  BERT whose positions begin behind the id of padding: rows 0 .. padding of the table are never used
    mpnet    the same, without segment types, and with biases of relative distance (components.nn.mpnet)

The files are those of `components.encoders.sentence`; a layer behind the first token, which averaging ignores, is left
out of the encoder and of its count of parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from components.data import model_files
from components.encoders import hub_names
from components.encoders.sentence import (
    CONFIG,
    FILES,
    POOLING,
    TOKENIZER,
    WEIGHTS,
    SentenceEncoder,
    SentenceEncoderError,
    load_sentence_encoder,
)
from components.nn.bert import BertConfig
from components.nn.mpnet import BUCKETS, MPNetLayer

# Sizes as published, for models that are described without being at hand.
PUBLISHED: dict[str, dict[str, Any]] = {
    "sentence-transformers/all-mpnet-base-v2": {
        "model_type": "mpnet",
        "vocab_size": 30527,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 514,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "pad_token_id": 1,
        "relative_attention_num_buckets": BUCKETS,
    },
    "sentence-transformers/all-distilroberta-v1": {
        "model_type": "roberta",
        "vocab_size": 50265,
        "hidden_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "pad_token_id": 1,
    },
}
_KINDS = ("roberta", "mpnet")
# Names of MPNet's tensors that are not those of a BertModel.
_OF_MPNET = {
    "attention.attn.q.": "attention.self.query.",
    "attention.attn.k.": "attention.self.key.",
    "attention.attn.v.": "attention.self.value.",
    "attention.attn.o.": "attention.output.dense.",
    "attention.LayerNorm.": "attention.output.LayerNorm.",
}
_BIAS = "encoder.relative_attention_bias.weight"


def build(described: Mapping[str, Any], tokenizer: Tokenizer) -> SentenceEncoder:
    """Return an encoder of the sizes that a `config.json` gives, its weights not filled in.

    Raises:
        SentenceEncoderError: It is another kind of model, or computes something else.
    """
    kind = described.get("model_type")
    if kind not in _KINDS or described.get("hidden_act", "gelu") != "gelu":
        raise SentenceEncoderError(
            f"model_type is {kind!r} with {described.get('hidden_act')!r}; computed here are bert, "
            f"{', '.join(_KINDS)}, all with 'gelu'."
        )
    if described.get("relative_attention_num_buckets", BUCKETS) != BUCKETS:
        raise SentenceEncoderError(
            f"relative_attention_num_buckets is {described['relative_attention_num_buckets']}; expected {BUCKETS}."
        )
    config = BertConfig(
        vocabulary_size=described["vocab_size"],
        width=described["hidden_size"],
        layers=described["num_hidden_layers"],
        heads=described["num_attention_heads"],
        mlp=described["intermediate_size"],
        positions=described["max_position_embeddings"] - _first_position(described),
        types=1,
        epsilon=described["layer_norm_eps"],
    )
    encoder = SentenceEncoder(config, tokenizer)
    if kind == "mpnet":
        encoder.layers = nn.ModuleList(MPNetLayer(config) for _ in range(config.layers))
    return encoder


def load_encoder(directory: Path) -> SentenceEncoder:
    """Read a sentence encoder of any of these kinds, or a BERT, from a directory or a data set of model files.

    The encoder is in evaluation mode on the CPU and its weights take no gradients.

    Raises:
        SentenceEncoderError: A file is missing or damaged, or describes another kind of encoder.
    """
    contents = model_files.read(Path(directory), FILES)
    try:
        described, pooling = json.loads(contents[CONFIG]), json.loads(contents[POOLING])
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SentenceEncoderError(f"{directory}: {CONFIG} or {POOLING} is not JSON ({error}).") from error
    if described.get("model_type", "bert") == "bert":
        return load_sentence_encoder(directory)
    if not pooling.get("pooling_mode_mean_tokens"):
        raise SentenceEncoderError(f"{directory}/{POOLING}: only the mean over tokens is computed.")
    try:
        tokenizer = Tokenizer.from_buffer(contents[TOKENIZER])
        tensors = safetensors.torch.load(contents[WEIGHTS])
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise SentenceEncoderError(f"{directory}: {TOKENIZER} or {WEIGHTS} cannot be read ({error}).") from error
    with torch.device("meta"):
        encoder = build(described, tokenizer)
    try:
        encoder.load_state_dict(_state(tensors, described, encoder.config), assign=True)
    except (KeyError, RuntimeError) as error:
        raise SentenceEncoderError(f"{directory}: the tensors are not those of {CONFIG}: {error}.") from error
    return encoder.eval().requires_grad_(False)


def _first_position(described: Mapping[str, Any]) -> int:
    return described.get("pad_token_id", 1) + 1


def _state(tensors: Mapping[str, Tensor], described: Mapping[str, Any], config: BertConfig) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for theirs, ours in _OF_MPNET.items():
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    places = "embeddings.position_embeddings.weight"
    renamed[places] = renamed[places][_first_position(described) :].contiguous()
    if described["model_type"] != "mpnet":
        return hub_names.from_hub(renamed, config.layers)
    bias = renamed.pop(_BIAS)
    renamed["embeddings.token_type_embeddings.weight"] = torch.zeros(1, config.width)
    state = hub_names.from_hub(renamed, config.layers)
    return state | {f"layers.{layer}.relative.weight": bias.clone() for layer in range(config.layers)}
