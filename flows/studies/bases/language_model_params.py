"""Parameters of the recipe `language_model`: a small causal language model over the bytes of a corpus."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One tokenizer and one model, trained on what its data sets hold for training."""

    tokenizer: Literal["bpe", "unigram"] = "bpe"
    """Module of components.tokenizers.text."""
    vocabulary_size: int = Field(2048, ge=257)
    """Tokens of the tokenizer, the 256 bytes included."""
    pieces: Literal["spaced", "words"] = "spaced"
    """Pre-tokenizer: white space joined to what follows (source code), or words with the one space before them."""
    tokenizer_bytes: int = Field(2_000_000, ge=1000)
    """Most bytes of the training text that the tokenizer learns from; documents are drawn without replacement."""
    width: int = Field(192, ge=8)
    """Channels of a token."""
    layers: int = Field(4, ge=1)
    """Transformer blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    context: int = Field(256, ge=16)
    """Tokens of a training window, and positions of the model."""
    batch: int = Field(16, ge=1)
    """Windows of one step."""
    steps: int = Field(1000, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""
    psm: float = Field(0.0, ge=0, le=1)
    """Share of chunks arranged as prefix, suffix, middle."""
    spm: float = Field(0.0, ge=0, le=1)
    """Share of chunks arranged as suffix, prefix with middle."""
    joint: bool = True
    """Whether prefix and middle of an SPM chunk are encoded as the one text they are."""
    loop_prompts: int = Field(100, ge=1)
    """Held-out prompts whose greedy continuations are searched for loops."""

    @model_validator(mode="after")
    def _fits(self) -> Params:
        if self.psm + self.spm > 1:
            raise ValueError(f"psm {self.psm} and spm {self.spm} add up to more than 1.")
        return self


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return the modules that a base chooses by name."""
    return (f"components.tokenizers.text.{params.tokenizer}",)
