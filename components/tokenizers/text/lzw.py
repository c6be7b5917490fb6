"""The dictionary of Lempel, Ziv and Welch: every token but the symbols is an older token and one symbol more.

Letters: V tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from components.errors import TesseraError
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.max_prefix import load as load_max_prefix


class LempelZivError(TesseraError):
    """A Lempel-Ziv dictionary cannot be learned from these texts with these settings."""


def learn(texts: Iterable[str], vocabulary_size: int, *, alphabet: str = "") -> tuple[str, ...]:
    """Scan texts: take the longest token that matches, add it with the symbol behind it, go on after the match.

    Args:
        texts: Training texts; only as much is read as it takes to fill the dictionary.
        vocabulary_size: V, symbols included. Fewer come out when the texts end before.
        alphabet: Further symbols.

    Returns:
        Tokens: the symbols in ascending order, then new ones as they were added. Every prefix of a token is a token.

    Raises:
        LempelZivError: The dictionary has no room for the symbols, or there are none.

    Source: Welch 1984, "A Technique for High-Performance Data Compression"; as a tokenizer: Rajaraman et al. 2024,
    "Toward a Theory of Tokenization in LLMs" (arXiv 2404.08335).
    """
    texts = list(texts)
    symbols = sorted(set(alphabet).union(*texts))
    if not symbols or len(symbols) > vocabulary_size:
        raise LempelZivError(
            f"vocabulary_size is {vocabulary_size}, but there are {len(symbols)} symbols; expected at least one symbol "
            "and room for all."
        )
    vocabulary = dict.fromkeys(symbols)
    for text in texts:
        start, length = 0, len(text)
        while start < length and len(vocabulary) < vocabulary_size:
            end = start + 1
            # The dictionary is closed under prefixes, so the first miss ends the longest match.
            while end < length and text[start : end + 1] in vocabulary:
                end += 1
            if end < length:
                vocabulary[text[start : end + 1]] = None
            start = end
    return tuple(vocabulary)


def train(texts: Iterable[str], vocabulary_size: int, *, alphabet: str = "", pieces: str = "") -> MaxPrefixTokenizer:
    """Learn a dictionary and return its greedy tokenizer; `encoders.MinimalTokenizer` takes the same vocabulary.

    Raises:
        LempelZivError: As in `learn`, or `pieces` is given: the dictionary knows no pieces.
    """
    if pieces:
        raise LempelZivError("a Lempel-Ziv dictionary is learned from running text; leave 'pieces' empty.")
    return MaxPrefixTokenizer(learn(texts, vocabulary_size, alphabet=alphabet))


def load(path: Path) -> MaxPrefixTokenizer:
    """Read a tokenizer that `save` wrote."""
    return load_max_prefix(path)
