"""The unigram language model tokenizer, encoded by Hugging Face `tokenizers`, the same bytes from every training.

Letters: V tokens, N symbols of a text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import Unigram

from components.tokenizers.text.piecewise import PiecewiseTokenizer, piece_counts, read, with_pieces
from components.tokenizers.text.unigram_trainer import LONGEST_TOKEN, learn


class UnigramTokenizer(PiecewiseTokenizer):
    """The most probable segmentation of each piece, tokens independent (Viterbi).

    `encode(x) = argmax over t_1 ... t_n = x of sum_i ln p(t_i)`; where two are equally good, the one whose last token
    is longer, again and again from the end.

    Attributes:
        vocabulary: Token strings by id: the alphabet in ascending order, then tokens by falling probability.

    Source: Kudo 2018, "Subword Regularization" (arXiv 1804.10959), section 3.2.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: str = "") -> None:
        super().__init__(tokenizer, pieces)
        self._sorted = sorted(self.vocabulary)

    def certain_tokens(self, text: str) -> int:
        """Return how many leading tokens of `encode(text)` no continuation of the text can change.

        The encoding of a longer text passes the end of this one, or a place before it from which the rest of this
        text is the beginning of a longer token. Up to that place it is the encoding of the text until there. So what
        the encodings until all such places have in common at their beginning is certain; where there are pieces, all
        tokens before the last piece are.
        """
        if not text:
            return 0
        if self.pieces:
            return self._last_piece(text)
        tokens = self.encode(text)
        longest = max(map(len, self.vocabulary))
        for cut in range(max(0, len(text) - longest + 1), len(text)):
            rest = text[cut:]
            # The least token above `rest` begins with it if any does.
            above = bisect_right(self._sorted, rest)
            if above < len(self._sorted) and self._sorted[above].startswith(rest):
                shorter = self.encode(text[:cut])
                same = [one == other for one, other in zip(tokens, shorter, strict=False)]
                tokens = tokens[: same.index(False) if False in same else len(same)]
        return len(tokens)

    def validity_memory(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the tokens of the last piece, all tokens where there are no pieces.

        Adjacent pairs do not decide: `A, B` and `B, C` may be best for AB and BC while another cut is best for ABC.
        So a sequence is valid iff re-encoding the whole last piece with what follows gives it back.
        """
        if not self.pieces or not tokens:
            return tokens
        return tokens[self._last_piece(self.decode(tokens)) :]


def train(
    texts: Iterable[str], vocabulary_size: int, *, alphabet: str = "", pieces: str = "", longest: int = LONGEST_TOKEN
) -> UnigramTokenizer:
    """Learn tokens and their probabilities by expectation-maximisation and pruning.

    Encoding is the library's; learning is not, because the library's trainer visits words in the order of a hash map
    and so gives another vocabulary in every process.

    Args:
        texts: Training texts.
        vocabulary_size: V, symbols included. Fewer come out when the texts repeat too little.
        alphabet: Symbols that become tokens although the texts may lack them.
        pieces: Regular expression of pieces that tokens stay inside, such as bpe.WORD_PIECES; "" for none.
        longest: Length of the longest token allowed, in symbols.

    Raises:
        UnigramError: The vocabulary has no room for the alphabet, or there is no symbol at all.
    """
    tokens = learn(piece_counts(texts, pieces), vocabulary_size, alphabet=alphabet, longest=longest)
    return UnigramTokenizer(with_pieces(Tokenizer(Unigram(tokens)), pieces), pieces)


def load(path: Path) -> UnigramTokenizer:
    """Read a tokenizer that `save` wrote."""
    return UnigramTokenizer(*read(path))
