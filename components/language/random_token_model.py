"""Token models with random probabilities, small enough that every string's probability can be enumerated.

Letters: V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.language.byte_conversion import NextToken
from components.tokenizers.text.continuations import ReencodedContinuations
from components.tokenizers.text.validity import TextTokenizer


class RandomTokenModel:
    """A distribution of its own behind every token sequence, drawn uniformly from all distributions.

    The end of the text has id V and always some probability.

    Args:
        tokenizer: A small tokenizer.
        seed: Seed of all distributions.
        only_valid: Tokens that make a sequence invalid get probability 0, as in the token distribution of any source
            of texts; otherwise they get their share, as in a trained network.
    """

    def __init__(self, tokenizer: TextTokenizer, seed: int, *, only_valid: bool) -> None:
        self._size = len(tokenizer.vocabulary)
        self._seed = seed
        self._valid = ReencodedContinuations(tokenizer, memory=tuple) if only_valid else None
        self._rows: dict[tuple[int, ...], Tensor] = {}
        self.end = self._size

    def next(self, tokens: Sequence[int]) -> Tensor:
        """Return ln P(next token | tokens), (V + 1,) float64."""
        tokens = tuple(tokens)
        if tokens not in self._rows:
            generator = np.random.default_rng([self._seed, *(token + 1 for token in tokens)])
            weights = generator.exponential(size=self._size + 1)
            if self._valid is not None:
                weights[: self._size] *= self._valid.after(tokens)
            self._rows[tokens] = torch.from_numpy(weights / weights.sum()).log()
        return self._rows[tokens]


@dataclass(frozen=True)
class EnumeratedText:
    """Probabilities of strings, by walking every token sequence.

    Attributes:
        begins: P(the text begins with x) by x.
        ends: P(the text is x) by x.
    """

    begins: dict[str, float]
    ends: dict[str, float]

    def next(self, text: str, alphabet: str) -> np.ndarray:
        """Return P(next symbol | text) and, last, P(the text ends | text), (A + 1,)."""
        above = [self.begins.get(text + symbol, 0.0) for symbol in alphabet]
        return np.array([*above, self.ends.get(text, 0.0)]) / self.begins[text]


def enumerate_texts(next_token: NextToken, vocabulary: Sequence[str], end: int, longest: int) -> EnumeratedText:
    """Sum a token model over all of its sequences, whatever their form.

    A sequence contributes to x where it is the first along its path to spell all of x.

    Args:
        next_token: The model, all mass on tokens and the end.
        vocabulary: Token strings by id.
        end: Id of the end of the text.
        longest: Symbols of the longest string wanted.
    """
    begins, ends = {"": 1.0}, {}
    waiting: list[tuple[tuple[int, ...], str, float]] = [((), "", 1.0)]
    while waiting:
        tokens, text, mass = waiting.pop()
        row = next_token(tokens).exp().tolist()
        ends[text] = ends.get(text, 0.0) + mass * row[end]
        for token, spelled in enumerate(vocabulary):
            if (share := mass * row[token]) > 0:
                for size in range(1, min(len(spelled), longest - len(text)) + 1):
                    beginning = text + spelled[:size]
                    begins[beginning] = begins.get(beginning, 0.0) + share
                if len(text) + len(spelled) < longest:
                    waiting.append(((*tokens, token), text + spelled, share))
    return EnumeratedText(begins, ends)
