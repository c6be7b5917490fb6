"""Byte-pair encoding by Hugging Face `tokenizers`, over plain symbols, the same bytes from every training.

Letters: V tokens, N symbols of a text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from components.errors import TesseraError
from components.tokenizers.text.piecewise import PiecewiseTokenizer, read, with_pieces

WORD_PIECES = r" ?[A-Za-z]+| ?[^A-Za-z\s]+|\s"
"""Words and runs of other signs, each with the one space before it; every other white space stands alone.

Whether two neighbouring symbols fall into one piece depends on these two alone. So a piece that another follows is
finished, no continuation of the text moves its start, and adjacent pairs still decide validity.
"""


class BytePairError(TesseraError):
    """A BPE tokenizer was trained or read with settings that this class does not cover."""


class BytePairTokenizer(PiecewiseTokenizer):
    """Byte-pair encoding: symbols, then the learned merges in order, inside each piece of the text.

    Attributes:
        vocabulary: Token strings by id: the alphabet in ascending order, then one token per merge.
        pieces: Regular expression of the pre-tokenizer, "" for none (merges cross everything).

    Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: str = "") -> None:
        super().__init__(tokenizer, pieces)
        ids = tokenizer.get_vocab().values()
        if sorted(ids) != list(range(len(ids))):
            raise BytePairError(f"The ids of the {len(ids)} tokens have gaps; expected 0 to {len(ids) - 1}.")

    def certain_tokens(self, text: str) -> int:
        """Return how many leading tokens of `encode(text)` no continuation of the text can change.

        Those before the last piece. Without a pre-tokenizer there are none: how far a continuation reaches back has
        no bound that the vocabulary alone would give.
        """
        return self._last_piece(text) if self.pieces else 0

    def validity_memory(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the last token: a sequence is valid iff every adjacent pair is."""
        return tokens[-1:]


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
    tokenizer = with_pieces(Tokenizer(BPE()), pieces)
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
    return BytePairTokenizer(*read(path))
