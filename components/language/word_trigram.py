"""A trigram model of words by counts, smoothed by interpolation, asked for many words at once.

    p(w | h) = (n(h, w) + d(h) p(w | h')) / (n(h) + d(h))

with n the count, d(h) the number of different words seen after history h, and h' the history without its oldest word;
the last one is uniform over the words and the end. A sentence begins with two start marks and ends with the end mark.

Letters: `V` words.

Source: Witten and Bell 1991, "The zero-frequency problem", method C; the recursion: Chen and Goodman 1999, section 2.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from components.errors import TesseraError


class WordTrigramError(TesseraError):
    """A trigram model was given a word or a sentence that it cannot count."""


class WordTrigram:
    """Counts of a text; ids 0 .. V - 1 are words, V is the end, V + 1 the start.

    Args:
        sentences: Word ids of each sentence.
        size: V.

    Attributes:
        size: V.
        end: Id that follows the last word.
        start: Id of the two words before the first.
    """

    def __init__(self, sentences: Iterable[Sequence[int]], size: int) -> None:
        self.size, self.end, self.start = size, size, size + 1
        rows = [
            triple
            for sentence in sentences
            for marked in [(self.start, self.start, *sentence, self.end)]
            for triple in zip(marked, marked[1:], marked[2:], strict=False)
        ]
        if not rows:
            raise WordTrigramError("A trigram model was given no sentence; give it the training text.")
        triples = torch.tensor(rows, dtype=torch.int64)
        said = triples[:, 2]
        if bool(((said < 0) | (said > size)).any()):
            raise WordTrigramError(f"A sentence holds word {int(said.max())}; expected ids 0 to {size - 1}.")
        self._base = size + 2
        # Levels of the history, from none to two words: sorted keys of (history, word) and of histories.
        self._levels = [_Level(self._key(triples[:, 2 - order :])) for order in range(3)]
        self._contexts = [_Contexts(level, self._base) for level in self._levels]

    def _key(self, words: Tensor) -> Tensor:
        """Read rows of words (..., n) as numbers in base V + 2."""
        key = words[..., 0]
        for place in range(1, words.shape[-1]):
            key = key * self._base + words[..., place]
        return key

    def log_probability(self, older: Tensor, newer: Tensor, word: Tensor) -> Tensor:
        """Return ln p(word | older newer), float64, of ids that share a shape."""
        words = torch.stack([older, newer, word], -1)
        law = torch.full_like(word, 1 / (self.size + 1), dtype=torch.float64)
        for order, (level, contexts) in enumerate(zip(self._levels, self._contexts, strict=True)):
            key = self._key(words[..., 2 - order :])
            seen, different = contexts.of(key // self._base)
            law = torch.where(seen > 0, (level.of(key) + different * law) / (seen + different).clamp(min=1), law)
        return law.log()


class _Level:
    """How often each key occurs."""

    def __init__(self, keys: Tensor) -> None:
        self.keys, self.counts = torch.unique(keys, return_counts=True)

    def of(self, keys: Tensor) -> Tensor:
        return _looked_up(self.keys, self.counts, keys)


class _Contexts:
    """How many words, and how many different ones, follow each history."""

    def __init__(self, level: _Level, base: int) -> None:
        self.keys, place, self.different = torch.unique(level.keys // base, return_inverse=True, return_counts=True)
        self.counts = torch.zeros_like(self.different).index_add_(0, place, level.counts)

    def of(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        return _looked_up(self.keys, self.counts, keys), _looked_up(self.keys, self.different, keys)


def _looked_up(keys: Tensor, values: Tensor, asked: Tensor) -> Tensor:
    place = torch.searchsorted(keys, asked.contiguous()).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == asked, values[place], 0).double()
