"""Learning the merges of byte-pair encoding, from all of the text at every step or from fresh text for every merge.

The library's trainer (components.tokenizers.text.bpe) looks through every piece that holds a pair, which takes
quadratic time where a text is not cut into pieces, and it can learn in one way only. Encoding stays the library's.

Letters: V tokens, M merges, N symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE

from components.tokenizers.text.bpe import BytePairError, BytePairTokenizer
from components.tokenizers.text.pair_index import PairIndex
from components.tokenizers.text.piecewise import piece_counts, with_pieces


@dataclass(frozen=True)
class Merges:
    """What byte-pair encoding learned.

    Attributes:
        vocabulary: Token strings by id: the symbols in ascending order, then the token of each merge. All differ: where
            a pair was merged, no other way is left to spell the same token.
        pairs: The M merges in order, as ids of the two tokens.
    """

    vocabulary: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    def tokenizer(self, pieces: str = "") -> BytePairTokenizer:
        """Return the library's tokenizer that applies these merges."""
        ids = {token: place for place, token in enumerate(self.vocabulary)}
        spelled = [(self.vocabulary[left], self.vocabulary[right]) for left, right in self.pairs]
        return BytePairTokenizer(with_pieces(Tokenizer(BPE(ids, spelled)), pieces), pieces)


def encode_at_sizes(merges: Merges, codes: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Encode one text in merge order with the first tokens of a vocabulary, for several numbers of tokens at once.

    The merges of a smaller vocabulary are the first merges of a larger one, so one pass gives all.

    Args:
        merges: What was learned.
        codes: Symbol indices of the text, without pieces, (N,).
        sizes: Vocabulary sizes in ascending order; one beyond the vocabulary counts as the whole.

    Yields:
        Token ids in order, (T,) int64, one array for each size.
    """
    symbols = len(merges.vocabulary) - len(merges.pairs)
    whole = np.full(min(1, len(codes)), len(codes))
    index = PairIndex(codes, whole, np.ones_like(whole), symbols)
    done = 0
    for size in sizes:
        for left, right in merges.pairs[done : max(0, size - symbols)]:
            index.merge(left, right, symbols + done)
            done += 1
        yield index.tokens[index.tokens >= 0]


def learn(pieces: Mapping[str, int], vocabulary_size: int, *, alphabet: str = "") -> Merges:
    """Learn merges: again and again the pair that is adjacent most often, ties by the lower ids.

    Args:
        pieces: Distinct pieces and how often each occurs.
        vocabulary_size: V, symbols included. Fewer come out when no pair is left.
        alphabet: Further symbols.

    Raises:
        BytePairError: The vocabulary has no room for the symbols.

    Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2.
    """
    symbols, pairs = _symbols(pieces, alphabet, vocabulary_size), []
    index = PairIndex.of_pieces(pieces, symbols)
    while len(symbols) + len(pairs) < vocabulary_size and (most := index.counts.max(initial=0)) > 0:
        pairs.append(index.lowest(np.flatnonzero(index.counts == most)))
        index.merge(*pairs[-1], len(symbols) + len(pairs) - 1)
    return _merges(symbols, pairs)


def learn_sequentially(text: str, vocabulary_size: int, *, alphabet: str = "") -> Merges:
    """Learn every merge from text that no earlier merge was learned from.

    The text is cut into as many chunks as there are merges to learn. Chunk i, encoded with the first i merges, gives
    merge i + 1: its most frequent pair, ties by the lower ids. So the counts that choose a merge are independent of
    the merges before, which is what makes the loss of this variant provable. A chunk that holds no pair gives none.

    Args:
        text: N symbols.
        vocabulary_size: V, symbols included.
        alphabet: Further symbols.

    Raises:
        BytePairError: The vocabulary has no room for the symbols, or there are chunks of fewer than two symbols.

    Source: Rajaraman et al. 2024, "Toward a Theory of Tokenization in LLMs" (arXiv 2404.08335), the sequential
    variant of byte-pair encoding.
    """
    symbols, found = _symbols([text], alphabet, vocabulary_size), []
    merges = vocabulary_size - len(symbols)
    if merges == 0:
        return _merges(symbols, found)
    size = len(text) // merges
    if size < 2:
        raise BytePairError(
            f"{len(text)} symbols for {merges} merges give chunks of {size}; expected at least 2 symbols for each. "
            "Give more text or fewer tokens."
        )
    index = PairIndex.of_chunks(text, size, symbols)
    for start in range(0, size * merges, size):
        tokens = index.tokens[start : start + size]
        tokens = tokens[tokens >= 0]
        pairs, counts = np.unique(np.stack([tokens[:-1], tokens[1:]], axis=1), axis=0, return_counts=True)
        if len(pairs):
            # The pairs are sorted, so the first of the most frequent ones has the lowest ids.
            found.append(tuple(pairs[counts.argmax()].tolist()))
            index.merge(*found[-1], len(symbols) + len(found) - 1)
    return _merges(symbols, found)


def train(
    texts: Iterable[str], vocabulary_size: int, *, alphabet: str = "", pieces: str = "", sequential: bool = False
) -> BytePairTokenizer:
    """Learn merges and return the tokenizer that applies them; as `bpe.train`, faster on texts without pieces.

    Args:
        texts: Training texts; merges do not cross from one into another.
        vocabulary_size: V, symbols included.
        alphabet: Symbols that become tokens although the texts may lack them.
        pieces: Regular expression of pieces that merges stay inside; "" for none.
        sequential: Learn every merge from fresh text (without pieces only).

    Raises:
        BytePairError: The settings do not fit each other or the texts.
    """
    if not sequential:
        return learn(piece_counts(texts, pieces), vocabulary_size, alphabet=alphabet).tokenizer(pieces)
    if pieces:
        raise BytePairError("sequential learning cuts the text into chunks of one length; leave 'pieces' empty.")
    return learn_sequentially("".join(texts), vocabulary_size, alphabet=alphabet).tokenizer()


def _symbols(texts: Iterable[str], alphabet: str, vocabulary_size: int) -> list[str]:
    symbols = sorted(set(alphabet).union(*texts))
    if len(symbols) > vocabulary_size:
        raise BytePairError(
            f"vocabulary_size is {vocabulary_size}, but the texts have {len(symbols)} symbols; expected room for all."
        )
    return symbols


def _merges(symbols: list[str], pairs: list[tuple[int, int]]) -> Merges:
    vocabulary = list(symbols)
    for left, right in pairs:
        vocabulary.append(vocabulary[left] + vocabulary[right])
    return Merges(tuple(vocabulary), tuple(pairs))
