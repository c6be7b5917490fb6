"""WordPiece: tokens that raise the likelihood of the text most, encoded by the longest match inside each piece.

Letters: V tokens, P pairs of adjacent tokens, N tokens of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from components.errors import TesseraError
from components.tokenizers.text.encoders import greedy
from components.tokenizers.text.pair_index import PairIndex
from components.tokenizers.text.piecewise import PiecewiseTokenizer, piece_counts, read, with_pieces
from components.tokenizers.text.trie import VocabularyTrie

_NEVER_TOO_LONG = 2**31 - 1


class WordPieceError(TesseraError):
    """WordPiece cannot be learned from these texts with these settings."""


class WordPieceTokenizer(PiecewiseTokenizer):
    """Greedy longest match from left to right inside each piece of the text.

    No token carries a mark such as "##" that it continues a word: where pieces begin with their space, the space
    marks the beginning, and tokens spell the text.

    Attributes:
        vocabulary: Token strings by id: the alphabet in ascending order, then tokens as they were learned.

    Source: Wu et al. 2016, "Google's Neural Machine Translation System" (arXiv 1609.08144), section 4.1.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: str = "") -> None:
        super().__init__(tokenizer, pieces)
        self._trie = VocabularyTrie(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text.

        Raises:
            UnknownSymbol: A symbol of the text is no token.
        """
        if self.pieces:
            return super().encode(text)
        # The library tries every length at every place, the longest first: cubic time in the length of a piece.
        return greedy(self._trie, self._trie.codes(text)).tolist()

    def certain_tokens(self, text: str) -> int:
        """Return how many leading tokens of `encode(text)` no continuation of the text can change.

        Those before the last piece, and inside it those before the first boundary from which the rest of the text is
        the beginning of a longer token (as for maximum prefix encoding).
        """
        if not text:
            return 0
        tokens = self.encode(text)
        first = self._last_piece(text) if self.pieces else 0
        rest = text[sum(len(self.vocabulary[token]) for token in tokens[:first]) :]
        for count in range(first, len(tokens)):
            below = self._trie.below(rest)
            if len(below) > 1 or (len(below) == 1 and self.vocabulary[below[0]] != rest):
                return count
            rest = rest[len(self.vocabulary[tokens[count]]) :]
        return len(tokens)

    def validity_memory(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the last tokens that begin close enough to the end for a longer token to begin there instead.

        Where there are pieces, the tokens of the last piece: matching begins anew where it begins.
        """
        if self.pieces and tokens:
            return tokens[self._last_piece(self.decode(tokens)) :]
        reach, first = self._trie.longest - 1, len(tokens)
        while first > 0 and (reach := reach - len(self.vocabulary[tokens[first - 1]])) >= 0:
            first -= 1
        return tokens[first:]


def learn(pieces: Mapping[str, int], vocabulary_size: int, *, alphabet: str = "") -> tuple[str, ...]:
    """Learn a vocabulary: again and again the pair of tokens whose merge raises the likelihood of the text most.

    The likelihood is that of independent tokens, L = sum_t c(t) ln c(t) - N ln N. Merging a pair that occurs n times
    takes n from the counts of both of its tokens and from N and makes a token of count n:

        gain = f(c_l - n) - f(c_l) + f(c_r - n) - f(c_r) + f(n) + f(N) - f(N - n),   f(x) = x ln x;

    a pair of equal tokens takes 2n from one count. Ties go to the lower ids, and a merge never lowers the likelihood.

    Args:
        pieces: Distinct pieces and how often each occurs.
        vocabulary_size: V, symbols included. Fewer come out when no pair raises the likelihood.
        alphabet: Further symbols.

    Returns:
        Tokens: the symbols in ascending order, then new ones as they were made.

    Raises:
        WordPieceError: The vocabulary has no room for the symbols, or there are none.

    Source: Schuster and Nakajima 2012, "Japanese and Korean Voice Search", section 4.
    """
    symbols = sorted(set(alphabet).union(*pieces))
    if not symbols or len(symbols) > vocabulary_size:
        raise WordPieceError(
            f"vocabulary_size is {vocabulary_size}, but there are {len(symbols)} symbols; expected at least one symbol "
            "and room for all."
        )
    vocabulary, ids = list(symbols), {symbol: place for place, symbol in enumerate(symbols)}
    index = PairIndex.of_pieces(pieces, symbols)
    while len(vocabulary) < vocabulary_size:
        alive = np.flatnonzero(index.counts)
        left, right = (tokens[alive] for tokens in index.pairs)
        gains = likelihood_gains(left, right, index.counts[alive], index.token_counts)
        most = gains.max(initial=0.0)
        if most <= 0:
            break
        left, right = index.lowest(alive[gains == most])
        token = vocabulary[left] + vocabulary[right]
        if token not in ids:
            ids[token] = len(vocabulary)
            vocabulary.append(token)
        index.merge(left, right, ids[token])
    return tuple(vocabulary)


def likelihood_gains(left: np.ndarray, right: np.ndarray, counts: np.ndarray, token_counts: np.ndarray) -> np.ndarray:
    """Return how much each merge would raise the log-likelihood of the text, (P,) nats; see `learn`.

    Args:
        left: Left token of each pair, (P,).
        right: Right token of each pair, (P,).
        counts: Occurrences of each pair, (P,); of a doubled token those that overlap count too, so its gain is an
            estimate there.
        token_counts: Occurrences of each token, (V,).
    """
    total = float(token_counts.sum())
    both = token_counts.astype(np.float64)
    own = _x_log_x(both)
    doubled = left == right
    # A doubled token in a run of three overlaps itself; more than half of its occurrences cannot be paired.
    counts = np.where(doubled, np.minimum(counts, token_counts[left] // 2), counts).astype(np.float64)
    after_left = both[left] - np.where(doubled, 2 * counts, counts)
    gain = _x_log_x(after_left) - own[left] + _x_log_x(counts)
    gain += np.where(doubled, 0.0, _x_log_x(both[right] - counts) - own[right])
    return gain + total * np.log(total) - _x_log_x(total - counts)


def _x_log_x(counts: np.ndarray) -> np.ndarray:
    return counts * np.log(np.maximum(counts, 1))


def train(texts: Iterable[str], vocabulary_size: int, *, alphabet: str = "", pieces: str = "") -> WordPieceTokenizer:
    """Learn a vocabulary and return the tokenizer that matches it; nothing depends on the order of a hash map.

    Args:
        texts: Training texts.
        vocabulary_size: V, symbols included.
        alphabet: Symbols that become tokens although the texts may lack them.
        pieces: Regular expression of pieces that tokens stay inside, such as bpe.WORD_PIECES; "" for none.

    Raises:
        WordPieceError: The vocabulary has no room for the alphabet, or there is no symbol at all.
    """
    return of_vocabulary(learn(piece_counts(texts, pieces), vocabulary_size, alphabet=alphabet), pieces)


def of_vocabulary(vocabulary: Iterable[str], pieces: str = "") -> WordPieceTokenizer:
    """Return the tokenizer of a given vocabulary, which must hold every symbol of its tokens."""
    model = WordPiece(
        {token: place for place, token in enumerate(vocabulary)},
        unk_token="",
        continuing_subword_prefix="",
        max_input_chars_per_word=_NEVER_TOO_LONG,
    )
    return WordPieceTokenizer(with_pieces(Tokenizer(model), pieces), pieces)


def load(path: Path) -> WordPieceTokenizer:
    """Read a tokenizer that `save` wrote."""
    return WordPieceTokenizer(*read(path))
