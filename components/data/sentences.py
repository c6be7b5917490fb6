"""Short sentences of a small vocabulary whose word order follows the trigrams of a text.

    P(w_3 | w_1, w_2) = count(w_1 w_2 w_3) / count(w_1 w_2 .)      where the pair goes on inside the vocabulary,
                        else by pairs, else by words

Letters: `V` words of the vocabulary.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from components.errors import TesseraError


class SentencesError(TesseraError):
    """A text gives no such vocabulary or sentences."""


def vocabulary(words: Sequence[str], size: int) -> list[str]:
    """Return the commonest pronounceable words of a text, sorted.

    A word has letters only, at least one vowel among them; single letters other than "a" and "i" are left out. Of
    words as common as one another the first in the alphabet is kept.

    Raises:
        SentencesError: The text has not as many.
    """
    spoken = re.compile(r"a|i|(?=.*[aeiouy])[a-z]{2,}")
    counts = Counter(word for word in words if spoken.fullmatch(word))
    if len(counts) < size:
        raise SentencesError(f"the text has {len(counts)} different words of letters; a vocabulary needs {size}.")
    return sorted(sorted(counts, key=lambda word: (-counts[word], word))[:size])


class Trigrams:
    """Word order of a text, restricted to a vocabulary.

    Args:
        words: The text.
        kept: Vocabulary, V words.
    """

    def __init__(self, words: Sequence[str], kept: Sequence[str]) -> None:
        inside = set(kept)
        self._next: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        history: tuple[str, ...] = ()
        for word in words:
            if word not in inside:
                history = ()
                continue
            for length in range(len(history) + 1):
                self._next[history[len(history) - length :]][word] += 1
            history = (*history, word)[-2:]
        if not self._next:
            raise SentencesError("no word of the vocabulary occurs in the text.")
        # Sorted words make a draw depend on counts only.
        self._tables = {
            context: (sorted(counts), np.cumsum([counts[word] for word in sorted(counts)]))
            for context, counts in self._next.items()
        }

    def sentence(self, length: int, draws: np.random.Generator) -> str:
        """Draw a sentence of `length` words."""
        said: list[str] = []
        for _ in range(length):
            context = tuple(said[-2:])
            while context not in self._tables:
                context = context[1:]
            words, totals = self._tables[context]
            said.append(words[int(np.searchsorted(totals, draws.integers(totals[-1]), side="right"))])
        return " ".join(said)
