"""Exactness: next-byte probabilities of small token models beside an enumeration of all their token sequences."""

from __future__ import annotations

import itertools

import numpy as np

from components.language.byte_stream import ByteStream
from components.language.random_token_model import EnumeratedText, RandomTokenModel, enumerate_texts
from components.language.token_rows import ByteVocabulary, TokenRows
from components.metrics.tables import MetricTable
from components.tokenizers.text.bpe import train
from components.tokenizers.text.continuations import continuations_of
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.validity import TextTokenizer
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.decoding.sources import stream

_ALPHABET = "ab"
_TRAINING_TEXTS, _TRAINING_LENGTH = 8, 60
_LONGEST_TOKEN = 4


def measure(stage: StageContext, table: MetricTable) -> None:
    """Compare, over all texts of an alphabet of two and every next byte or end, the largest difference."""
    params = stage.params
    generator = stream(stage.seed, "enumerated models")
    worst, compared = 0.0, 0
    for index in range(params.enumerated_models):
        tokenizer = (random_bpe, random_max_prefix)[index % 2](params.enumerated_vocabulary, generator)
        model = RandomTokenModel(tokenizer, derive_seed(stage.seed, index), only_valid=True)
        truth = enumerate_texts(model.next, tokenizer.vocabulary, model.end, params.enumerated_symbols)
        errors = differences(model, tokenizer, truth, params.enumerated_symbols)
        worst, compared = max(worst, *errors), compared + len(errors)
        stage.progress(index + 1, params.enumerated_models)
    table.add("enumeration_error", worst, unit="probability", samples=compared)


def differences(model: RandomTokenModel, tokenizer: TextTokenizer, truth: EnumeratedText, longest: int) -> list[float]:
    """Return |P - enumeration| of every next symbol behind every text, from fresh covers and from streams."""
    vocabulary = ByteVocabulary(tokenizer)
    rows = TokenRows(model.next, vocabulary, continuations=continuations_of(tokenizer), end=model.end)
    found: list[float] = []

    def compare(predictor: ByteStream, text: str) -> None:
        error = np.exp(predictor.log_probabilities()) - truth.next(text, vocabulary.alphabet)
        found.extend(np.abs(error).tolist())

    for length in range(longest):
        for letters in itertools.product(_ALPHABET, repeat=length):
            compare(ByteStream(rows, "".join(letters)), "".join(letters))
    for letters in itertools.product(_ALPHABET, repeat=longest - 1):
        streaming = ByteStream(rows)
        for place, letter in enumerate(letters, start=1):
            streaming.append(letter)
            compare(streaming, "".join(letters[:place]))
    return found


def random_bpe(size: int, generator: np.random.Generator) -> TextTokenizer:
    """Learn merges on random texts."""
    letters = generator.choice(list(_ALPHABET), size=(_TRAINING_TEXTS, _TRAINING_LENGTH), p=[0.6, 0.4])
    return train(["".join(row) for row in letters], size, alphabet=_ALPHABET)


def random_max_prefix(size: int, generator: np.random.Generator) -> TextTokenizer:
    """Draw tokens of two to four symbols."""
    tokens = list(_ALPHABET)
    while len(tokens) < size:
        token = "".join(generator.choice(list(_ALPHABET), size=generator.integers(2, _LONGEST_TOKEN, endpoint=True)))
        if token not in tokens:
            tokens.append(token)
    return MaxPrefixTokenizer(tokens)
