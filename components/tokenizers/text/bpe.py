"""Byte-pair encoding by Hugging Face `tokenizers`, over plain symbols, the same bytes from every training.

Letters: V tokens, N symbols of a text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import BpeTrainer

from components.errors import TesseraError
from components.tokenizers.text.trie import UnknownSymbol

WORD_PIECES = r" ?[A-Za-z]+| ?[^A-Za-z\s]+|\s"
"""Words and runs of other signs, each with the one space before it; every other white space stands alone.

Whether two neighbouring symbols fall into one piece depends on these two alone. So a piece that another follows is
finished, no continuation of the text moves its start, and adjacent pairs still decide validity.
"""


class BytePairError(TesseraError):
    """A BPE tokenizer was trained or read with settings that this class does not cover."""


class BytePairTokenizer:
    """Byte-pair encoding: symbols, then the learned merges in order, inside each piece of the text.

    Attributes:
        vocabulary: Token strings by id: the alphabet in ascending order, then one token per merge.
        pieces: Regular expression of the pre-tokenizer, "" for none (merges cross everything).

    Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: str = "") -> None:
        self._tokenizer = tokenizer
        self.pieces = pieces
        ids = tokenizer.get_vocab()
        self.vocabulary = tuple(sorted(ids, key=ids.__getitem__))
        if sorted(ids.values()) != list(range(len(ids))):
            raise BytePairError(f"The ids of the {len(ids)} tokens have gaps; expected 0 to {len(ids) - 1}.")
        self._alphabet = {symbol for token in self.vocabulary for symbol in token}

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text.

        Raises:
            UnknownSymbol: A symbol of the text is no token (the library would drop it silently).
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

    def certain_tokens(self, text: str) -> int:
        """Return how many leading tokens of `encode(text)` no continuation of the text can change.

        Those before the last piece. Without a pre-tokenizer there are none: how far a continuation reaches back has
        no bound that the vocabulary alone would give.
        """
        if not self.pieces or not text:
            return 0
        _, pieces = self.encode_with_pieces(text)
        return pieces.index(pieces[-1])

    def validity_memory(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the last token: a sequence is valid iff every adjacent pair is."""
        return tokens[-1:]

    def save(self, path: Path) -> None:
        """Write the tokenizer as the library's JSON."""
        path.write_text(self._tokenizer.to_str(pretty=True) + "\n")

    def _check(self, text: str) -> None:
        if unknown := sorted(set(text) - self._alphabet):
            raise UnknownSymbol(
                f"{unknown[:8]} in the text but in no token; train the tokenizer with every symbol that occurs."
            )


def train(texts: Iterable[str], vocabulary_size: int, *, alphabet: str = "", pieces: str = "") -> BytePairTokenizer:
    """Learn merges: again and again the most frequent adjacent pair, ties by the lower ids.

    Training twice, in whatever process, gives the same bytes; the library breaks ties by ids and orders symbols by
    code point, so nothing depends on the order of a hash map.

    Args:
        texts: Training texts; merges do not cross from one into another.
        vocabulary_size: V, symbols included. Fewer come out when the texts have no pair left.
        alphabet: Symbols that become tokens although the texts may lack them.
        pieces: Regular expression of pieces that merges stay inside, such as WORD_PIECES; "" for none. It must match
            every symbol.

    Raises:
        BytePairError: The vocabulary has no room for the alphabet.
    """
    tokenizer = Tokenizer(BPE())
    if pieces:
        tokenizer.pre_tokenizer = Split(Regex(pieces), behavior="isolated")
    trainer = BpeTrainer(vocab_size=vocabulary_size, initial_alphabet=sorted(set(alphabet)), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    symbols = sum(len(token) == 1 for token in tokenizer.get_vocab())
    if symbols > vocabulary_size:
        raise BytePairError(
            f"vocabulary_size is {vocabulary_size}, but the texts have {symbols} symbols; expected room for all."
        )
    return BytePairTokenizer(tokenizer, pieces)


def load(path: Path) -> BytePairTokenizer:
    """Read a tokenizer that `save` wrote."""
    content = path.read_text()
    split = json.loads(content)["pre_tokenizer"]
    return BytePairTokenizer(Tokenizer.from_str(content), split["pattern"]["Regex"] if split else "")
