"""What the tokenizers that run through Hugging Face `tokenizers` share: plain symbols, pieces, no silent loss.

A symbol is one character of `str`; a tokenizer of bytes passes its bytes through latin-1.

Letters: V tokens, B texts, N symbols of a text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import Split

from components.tokenizers.text.trie import UnknownSymbol

_PLAIN_PATTERN = re.compile(r"(?:\\[sS]|\\[^\w]|\[\^|\(\?[:=!]|[^\\^$()\[&:]|\[(?!:)|\))*")
_SEPARATORS = re.compile("[\x1c-\x1f]")


class PiecewiseTokenizer:
    """A tokenizer that cuts a text into pieces and encodes each piece by itself.

    Attributes:
        vocabulary: Token strings by id; every symbol of every token is a token itself.
        pieces: Regular expression of the pre-tokenizer, "" for none (the whole text is one piece). Whether a text
            is cut between two symbols must depend on what stands before the cut and on one symbol behind it.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: str = "") -> None:
        self._tokenizer = tokenizer
        self.pieces = pieces
        ids = tokenizer.get_vocab()
        self.vocabulary = tuple(sorted(ids, key=ids.__getitem__))
        self._alphabet = {symbol for token in self.vocabulary for symbol in token}

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text.

        Raises:
            UnknownSymbol: A symbol of the text is no token.
        """
        self._check(text)
        return self._tokenizer.encode(text).ids

    def encode_with_pieces(self, text: str) -> tuple[list[int], list[int]]:
        """Return the token ids of a text and, for each, the index of its piece."""
        self._check(text)
        encoding = self._tokenizer.encode(text)
        return encoding.ids, encoding.word_ids

    def first_tokens(self, texts: Sequence[str], count: int) -> np.ndarray:
        """Return the first `count` token ids of each text, (B, count) int64, -1 behind the end of the text."""
        tokens = np.full((len(texts), count), -1, np.int64)
        for row, text in enumerate(texts):
            # One by one: the library's batch call would start as many threads as there are cores.
            found = self.encode(text)[:count]
            tokens[row, : len(found)] = found
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that the tokens spell."""
        return "".join(self.vocabulary[token] for token in tokens)

    def save(self, path: Path) -> None:
        """Write the tokenizer as the library's JSON."""
        path.write_text(self._tokenizer.to_str(pretty=True) + "\n")

    def _last_piece(self, text: str) -> int:
        """Return how many tokens of `encode(text)` stand before the last piece."""
        _, piece_of = self.encode_with_pieces(text)
        return piece_of.index(piece_of[-1]) if piece_of else 0

    def _check(self, text: str) -> None:
        if unknown := sorted(set(text) - self._alphabet):
            raise UnknownSymbol(
                f"{unknown[:8]} in the text but in no token; train the tokenizer with every symbol that occurs."
            )


def with_pieces(tokenizer: Tokenizer, pieces: str) -> Tokenizer:
    """Give a tokenizer of the library the pre-tokenizer that cuts at the matches of `pieces`, if there are any."""
    if pieces:
        tokenizer.pre_tokenizer = Split(Regex(pieces), behavior="isolated")
    return tokenizer


def piece_counts(texts: Iterable[str], pieces: str) -> dict[str, int]:
    """Count the pieces of texts, in code point order of the pieces: nothing depends on a hash map or on threads."""
    counts: Counter[str] = Counter()
    cut = Split(Regex(pieces), behavior="isolated").pre_tokenize_str if pieces else None
    for text in texts:
        if cut is None:
            counts[text] += 1
        else:
            counts.update(_python_pieces(text, pieces) or (piece for piece, _ in cut(text)))
    counts.pop("", None)
    return dict(sorted(counts.items()))


def _python_pieces(text: str, pieces: str) -> list[str] | None:
    """Cut by Python's regular expressions, which take a tenth of the time; None where they might cut otherwise.

    The two languages read these patterns alike: no letter is escaped but s and S, no group but a plain one or a look
    ahead, no anchor, and none of the separators U+001C to U+001F, which only Python counts as white space, in the
    text. A symbol that no match covers is cut by the library's rule, so there, too, the library decides.
    """
    if not _PLAIN_PATTERN.fullmatch(pieces) or _SEPARATORS.search(text):
        return None
    found = re.findall(pieces, text)
    return found if sum(map(len, found)) == len(text) else None


def read(path: Path) -> tuple[Tokenizer, str]:
    """Read what `save` wrote: the library's tokenizer, and the pieces."""
    content = path.read_text()
    split = json.loads(content)["pre_tokenizer"]
    return Tokenizer.from_str(content), split["pattern"]["Regex"] if split else ""
