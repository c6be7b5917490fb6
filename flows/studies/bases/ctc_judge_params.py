"""Parameters of the recipe `ctc_judge`: the recogniser that says whether speech can be understood."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One recogniser of characters, with a lexicon and a trigram of its training texts."""

    channels: int = Field(128, ge=4)
    """Channels of the two convolutions."""
    hidden: int = Field(160, ge=4)
    """Channels of one direction of a recurrent layer."""
    steps: int = Field(10_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Utterances per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(200, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""
    dropout: float = Field(0.15, ge=0, lt=1)
    """Share of channels dropped above the first recurrent layer."""
    train_utterances: int = Field(100_000, ge=1)
    """Most training utterances of each data set."""
    test_utterances: int = Field(100_000, ge=2)
    """Most utterances of each set that is measured."""
    resynthesised_share: float = Field(0.2, ge=0, lt=1)
    """Utterances that are there a second time, rendered by Griffin-Lim from their mel bands, over the training set."""
    resynthesis_iterations: int = Field(24, ge=1)
    """Projections of Griffin-Lim."""
    beams: int = Field(16, ge=1)
    """Prefixes that the search keeps."""
    language_weight: float = Field(0.5, ge=0)
    """Weight of the trigram."""
    word_bonus: float = Field(1.0)
    """Nats that every word adds."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that the recipe describes its model by."""
    return ("components.speech.recogniser",)
