"""Parameters of the recipe `speech_units`: clusters of a speech encoder's layers."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """All streams of one encoder."""

    layers: tuple[int, ...] = (1, 2, 3, 4)
    """Layers that are clustered."""
    codes: tuple[int, ...] = (50, 100, 200, 500)
    """Numbers of clusters of each layer."""
    train_utterances: int = Field(3_000, ge=1)
    """Most training utterances of each data set whose frames are clustered."""
    test_utterances: int = Field(400, ge=1)
    """Most utterances with known phonemes that units are measured on."""
    stored_layers: tuple[int, ...] = (3,)
    """Layers whose units are stored for every utterance; those of other layers are made when they are asked for."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.tokenizers.audio.ssl_kmeans", "components.speech.ssl_encoder")
