"""Every string of r symbols is a token: the text cut into blocks of one length.

Letters: A symbols, r block length, N symbols of a text, T tokens.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.errors import TesseraError
from components.tokenizers.text.trie import VocabularyTrie

_MOST_TOKENS = 1 << 22


class FixedNgramError(TesseraError):
    """There is no such dictionary of blocks, or it is too large."""


class FixedNgramTokenizer:
    """Blocks of r symbols from the beginning of the text; what is left at its end, fewer than r, symbol by symbol.

    The loss of the best unigram model over blocks is that of blocks of the source, `H(X_1 .. X_r) / r`.

    Attributes:
        vocabulary: The A^r blocks in lexicographic order, then the A symbols (only the symbols where r is 1).
        length: r.

    Args:
        alphabet: Symbols in ascending order.
        length: r.

    Raises:
        FixedNgramError: r is below 1, the alphabet is empty or not ascending, or there are more than 2^22 blocks.

    Source: Rajaraman et al. 2024, "Toward a Theory of Tokenization in LLMs" (arXiv 2404.08335), the dictionary that
    needs exponentially many tokens.
    """

    def __init__(self, alphabet: str, length: int) -> None:
        if length < 1 or not alphabet or list(alphabet) != sorted(set(alphabet)):
            raise FixedNgramError(
                f"FixedNgramTokenizer({alphabet!r}, {length}): expected distinct symbols in ascending order and a "
                "length of at least 1."
            )
        if len(alphabet) ** length > _MOST_TOKENS:
            raise FixedNgramError(
                f"{len(alphabet)}^{length} blocks are too many; expected at most {_MOST_TOKENS}. Use shorter blocks."
            )
        self.length, self._alphabet = length, alphabet
        blocks = ("".join(symbols) for symbols in itertools.product(alphabet, repeat=length))
        self.vocabulary = (*blocks, *(alphabet if length > 1 else ()))
        self._symbols = VocabularyTrie(alphabet)
        self._first_symbol = len(self.vocabulary) - len(alphabet)

    def encode_codes(self, codes: np.ndarray) -> np.ndarray:
        """Return the tokens of a text of symbol indices, (N,) to (T,) int64."""
        blocks = len(codes) // self.length
        weights = len(self._alphabet) ** np.arange(self.length - 1, -1, -1)
        whole = codes[: blocks * self.length].astype(np.int64).reshape(blocks, self.length) @ weights
        return np.append(whole, self._first_symbol + codes[blocks * self.length :].astype(np.int64))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text.

        Raises:
            UnknownSymbol: A symbol of the text is no token.
        """
        return self.encode_codes(self._symbols.codes(text)).tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that the tokens spell."""
        return "".join(self.vocabulary[token] for token in tokens)

    def certain_tokens(self, text: str) -> int:
        """Return the number of whole blocks: symbols left at the end join a block with what follows."""
        return len(text) // self.length

    def validity_memory(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the symbols left at the end: up to r - 1 of them may follow the blocks, and no block follows them."""
        first = len(tokens)
        while first > 0 and self.length > 1 and tokens[first - 1] >= self._first_symbol:
            first -= 1
        return tokens[first:]

    def save(self, path: Path) -> None:
        """Write alphabet and length as JSON."""
        content = {"kind": "fixed_ngram", "alphabet": self._alphabet, "length": self.length}
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n")


def load(path: Path) -> FixedNgramTokenizer:
    """Read a tokenizer that `save` wrote."""
    content = json.loads(path.read_text())
    return FixedNgramTokenizer(content["alphabet"], content["length"])
