"""Layouts of the Hub other than BERT's: what is read computes what the files say, and sizes are those published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from components.encoders import hub_names
from components.encoders.hub import PUBLISHED, build, load_encoder
from components.encoders.random_sentence import random_sentence_encoder, word_piece_tokenizer
from components.encoders.sentence import SentenceEncoder, SentenceEncoderError, save_sentence_encoder

PIECES = list("abcdefg")
TEXTS = ["a b c d", "g e"]


def hub_layout(encoder: SentenceEncoder, kind: str, relative: torch.Tensor) -> tuple[dict, dict[str, torch.Tensor]]:
    """Describe a BERT in another kind's names; two rows of positions in front stand for nothing."""
    config = encoder.config
    described = {
        "model_type": kind, "vocab_size": config.vocabulary_size, "hidden_size": config.width,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "intermediate_size": config.mlp,
        "max_position_embeddings": config.positions + 2, "layer_norm_eps": config.epsilon, "pad_token_id": 1,
    }  # fmt: skip
    tensors = hub_names.to_hub(encoder.state_dict(), config.layers)
    places, types = "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"
    tensors[places] = torch.cat([torch.full((2, config.width), 9.0), tensors[places]])
    tensors[types] = tensors[types][:1].clone()
    if kind == "mpnet":
        del tensors[types]
        spelled = {
            "attention.output.LayerNorm": "attention.LayerNorm",
            "attention.output.dense": "attention.attn.o",
            "attention.self.query": "attention.attn.q",
            "attention.self.key": "attention.attn.k",
            "attention.self.value": "attention.attn.v",
        }
        for ours, theirs in spelled.items():
            tensors = {name.replace(ours, theirs): tensor for name, tensor in tensors.items()}
        tensors["encoder.relative_attention_bias.weight"] = relative
    return described, tensors


def written(directory: Path, encoder: SentenceEncoder, kind: str, relative: torch.Tensor | None = None) -> Path:
    save_sentence_encoder(directory, encoder)
    relative = torch.zeros(32, encoder.config.heads) if relative is None else relative
    described, tensors = hub_layout(encoder, kind, relative)
    (directory / "config.json").write_text(json.dumps(described))
    safetensors.torch.save_file(tensors, directory / "model.safetensors")
    return directory


@pytest.fixture
def encoder() -> SentenceEncoder:
    made = random_sentence_encoder(PIECES)
    (types,) = (part for part in made.embeddings.children() if part.weight.shape[0] == made.config.types)
    with torch.no_grad():
        types.weight.zero_()
    return made


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_files_of_either_kind_without_biases_give_the_vectors_of_the_bert_they_spell(encoder, kind, tmp_path):
    read = load_encoder(written(tmp_path, encoder, kind))
    torch.testing.assert_close(read.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in read.parameters())


def test_mpnets_biases_reach_every_layer(encoder, tmp_path):
    biases = torch.randn(32, encoder.config.heads)
    read = load_encoder(written(tmp_path, encoder, "mpnet", biases))
    assert all(torch.equal(layer.relative.weight, biases) for layer in read.layers)
    assert (read.encode(TEXTS) - encoder.encode(TEXTS)).abs().max() > 1e-3


def test_a_bert_is_read_as_before(encoder, tmp_path):
    save_sentence_encoder(tmp_path, encoder)
    assert torch.equal(load_encoder(tmp_path).encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.parametrize(
    ("name", "published"),
    [("sentence-transformers/all-mpnet-base-v2", 109.5e6), ("sentence-transformers/all-distilroberta-v1", 82.1e6)],
)
def test_encoders_of_the_paper_have_the_published_number_of_parameters(name, published):
    with torch.device("meta"):
        encoder = build(PUBLISHED[name], word_piece_tokenizer(PIECES))
    width = encoder.config.width
    pooler = width * width + width
    count = sum(parameter.numel() for parameter in encoder.parameters()) + pooler
    assert count == pytest.approx(published, rel=0.001)


def test_other_kinds_and_damaged_files_are_refused(encoder, tmp_path):
    with pytest.raises(SentenceEncoderError, match="computed here are bert"):
        build({"model_type": "deberta"}, word_piece_tokenizer(PIECES))
    directory = written(tmp_path, encoder, "roberta")
    described = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(described | {"num_hidden_layers": 5}))
    with pytest.raises(SentenceEncoderError, match=r"tensors are not those of config\.json"):
        load_encoder(directory)
    (directory / "config.json").write_text("{")
    with pytest.raises(SentenceEncoderError, match="not JSON"):
        load_encoder(directory)
