"""The encoders of an arm: as it was published, with layers that learned nothing, or tuned."""

from __future__ import annotations

from components.encoders.hub import load_encoder
from components.encoders.random_sentence import redraw
from components.encoders.sentence import SentenceEncoder
from components.finetune.siamese import UpperLayers
from components.training.determinism import derive_seed
from components.training.weights import load_weights
from flows.studies.context import StageContext

WEIGHTS_FILE = "upper-layers.safetensors"
_RANDOM_LAYERS = 1


def published(stage: StageContext) -> SentenceEncoder:
    """Return the encoder that the stage names."""
    return load_encoder(stage.inputs[f"data/{stage.params.encoder}"]).to(stage.device)


def random_layers(stage: StageContext) -> SentenceEncoder:
    """Return the encoder with its embeddings as they are and all layers drawn anew by the stage's seed."""
    encoder = published(stage)
    redraw(encoder.layers, derive_seed(stage.seed, _RANDOM_LAYERS))
    return encoder


def tuned(stage: StageContext) -> SentenceEncoder:
    """Return the encoder with the upper layers that the stage's training has written."""
    encoder = published(stage)
    upper = UpperLayers(encoder, stage.params.tuned_from, shifted=stage.params.shifted)
    load_weights(upper, stage.inputs["train"] / WEIGHTS_FILE)
    return upper.into(encoder)
