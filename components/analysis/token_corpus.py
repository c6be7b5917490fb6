"""A corpus of tokens: documents of token ids over one vocabulary, whatever they stand for.

Words of a text, codes of an image in some order of its cells, units of speech, bases of a genome: the statistics of
this package ask only for documents of integers. n-grams never cross from one document into another.

Letters: `T` tokens in all, `D` documents, `G` n-grams in all, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from components.errors import TesseraError


class CorpusError(TesseraError):
    """A corpus is empty, shorter than asked for, or holds ids outside its vocabulary."""


@dataclass(frozen=True)
class Grams:
    """All n-grams of a corpus, numbered by type.

    Attributes:
        types: Type of each n-gram, 0 to `count` - 1, int64 (G,).
        documents: Document of each, int64 (G,).
        count: Distinct n-grams.
    """

    types: np.ndarray
    documents: np.ndarray
    count: int

    @cached_property
    def counts(self) -> np.ndarray:
        """Occurrences of each type, int64 (count,)."""
        return np.bincount(self.types, minlength=self.count)


@dataclass(frozen=True)
class TokenCorpus:
    """Documents of tokens.

    Attributes:
        tokens: All tokens, document after document, int64 (T,).
        starts: First token of each document and T at the end, int64 (D + 1,).
        vocabulary_size: V.
        names: Name of each document, by which the same document is known elsewhere.
    """

    tokens: np.ndarray
    starts: np.ndarray
    vocabulary_size: int
    names: tuple[str, ...]

    @classmethod
    def of(
        cls, documents: Sequence[Sequence[int] | np.ndarray], vocabulary_size: int, names: Sequence[str] = ()
    ) -> TokenCorpus:
        """Put documents together; their positions are their names where none are given.

        Raises:
            CorpusError: There is no token, or one is outside the vocabulary.
        """
        lengths = np.array([len(document) for document in documents], dtype=np.int64)
        tokens = np.concatenate([np.asarray(document, dtype=np.int64) for document in documents] or [np.empty(0, int)])
        if not len(tokens) or tokens.min() < 0 or tokens.max() >= vocabulary_size:
            span = f"from {tokens.min()} to {tokens.max()}" if len(tokens) else "none"
            raise CorpusError(
                f"{len(documents)} documents with {len(tokens)} tokens ({span}); expected at least one token, each "
                f"from 0 to {vocabulary_size - 1}."
            )
        given = tuple(map(str, names if len(names) else range(len(lengths))))
        if len(given) != len(lengths):
            raise CorpusError(f"{len(given)} names for {len(lengths)} documents; give one each.")
        return cls(tokens, np.concatenate([[0], lengths.cumsum()]), vocabulary_size, given)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, (D,)."""
        return np.diff(self.starts)

    @property
    def document_of(self) -> np.ndarray:
        """Document of each token, (T,)."""
        return np.repeat(np.arange(len(self.names)), self.lengths)

    @property
    def document_tokens(self) -> list[np.ndarray]:
        """Tokens of each document."""
        return np.split(self.tokens, self.starts[1:-1])

    def take(self, documents: np.ndarray) -> TokenCorpus:
        """Return the corpus of these documents, in this order."""
        parts = self.document_tokens
        chosen = [parts[document] for document in documents]
        return TokenCorpus.of(chosen, self.vocabulary_size, [self.names[document] for document in documents])

    def first(self, tokens: int) -> TokenCorpus:
        """Return the first so many tokens; the last document is cut where it must be.

        Raises:
            CorpusError: The corpus is shorter.
        """
        if tokens > len(self.tokens):
            raise CorpusError(f"the corpus has {len(self.tokens)} tokens, {tokens} are asked for; ask for fewer.")
        count = int(np.searchsorted(self.starts, tokens))
        starts = np.minimum(self.starts[: count + 1], tokens)
        return TokenCorpus(self.tokens[:tokens], starts, self.vocabulary_size, self.names[:count])

    def shuffled(self, generator: np.random.Generator) -> TokenCorpus:
        """Return the corpus with the tokens of each document in random order."""
        order = np.lexsort((generator.random(len(self.tokens)), self.document_of))
        return TokenCorpus(self.tokens[order], self.starts, self.vocabulary_size, self.names)

    def grams(self, n: int) -> Grams:
        """Return all runs of n tokens inside documents, numbered by type.

        Raises:
            CorpusError: No document has n tokens.
        """
        types, documents, count = self.tokens, self.document_of, self.vocabulary_size
        ends = self.starts[1:][documents]
        places = np.arange(len(self.tokens))
        if n > 1:
            places = places[places + n <= ends]
            types = self.tokens[places]
            for step in range(1, n):
                # Renumbered at every step, the numbers never grow beyond T V.
                joined = types * self.vocabulary_size + self.tokens[places + step]
                distinct, types = np.unique(joined, return_inverse=True)
            if not len(places):
                raise CorpusError(f"no document has {n} tokens; ask for shorter n-grams.")
            documents, count = documents[places], len(distinct)
        return Grams(types, documents, count)
