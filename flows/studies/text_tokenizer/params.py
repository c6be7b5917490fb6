"""Parameters and metrics of the text-tokenizer study: dictionaries of text, what they cost and what they give."""

from __future__ import annotations

from typing import Literal

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """How the dictionaries of an arm are learned from a real text."""

    tokenizer: Literal["bpe", "unigram", "wordpiece"] = "bpe"
    """Module of components.tokenizers.text."""
    sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    """Vocabulary sizes, each a dictionary of its own; the characters of the text are always in it."""
    learning_split: str = "train"
    """Split that dictionaries are learned from."""


class EvaluateParams(TrainParams):
    """How the dictionaries of an arm are measured on a real text."""

    test_split: str = "test"
    """Split that is encoded; its two halves take turns in fitting a unigram model and in being predicted by it."""


METRICS = {
    "nats_per_character": Metric(
        "nats/character",
        "lower",
        "-ln P(held-out text) of a model over tokens, summed over tokens and divided by the characters they spell.",
    ),
    "bits_per_byte": Metric("bits/byte", "lower", "The same in bits, divided by the UTF-8 bytes of the text."),
    "tokens_per_character": Metric(
        "tokens/character", "lower", "Tokens of held-out text divided by its characters, the inverse of a mean length."
    ),
    "dictionary_size": Metric("tokens", "neither", "Tokens of the dictionary; fewer than asked for in a short text."),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    return (f"components.tokenizers.text.{params.tokenizer}",)
