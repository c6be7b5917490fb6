"""Learning the merges of byte-pair encoding, from all of the text at every step or from fresh text for every merge.

The library's trainer (components.tokenizers.text.bpe) looks through every piece that holds a pair, which takes
quadratic time where a text is not cut into pieces, and it can learn in one way only. Encoding stays the library's.

Letters: V tokens, M merges, N symbols.
"""

from __future__ import annotations

import heapq
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
        vocabulary: Token strings by id: the symbols in ascending order, then new tokens as they were made. Two pairs
            that spell the same string make the same token.
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

    The merges of a smaller vocabulary are the first merges of a larger one, so one pass gives all. A pair that an
    earlier merge names and a later one forms again (two pairs may spell one token) is merged at once, as the lowest
    rank always goes first.

    Args:
        merges: What was learned.
        codes: Symbol indices of the text, without pieces, (N,).
        sizes: Vocabulary sizes in ascending order; one beyond the vocabulary counts as the whole.

    Yields:
        Token ids in order, (T,) int64, one array for each size.
    """
    symbols = len(merges.vocabulary) - _made(merges)
    whole = np.full(min(1, len(codes)), len(codes))
    index = PairIndex(codes, whole, np.ones_like(whole), symbols)
    ids = {token: place for place, token in enumerate(merges.vocabulary)}
    rank = {pair: place for place, pair in enumerate(merges.pairs)}
    holding: dict[int, list[tuple[int, int]]] = {}
    become = [ids[merges.vocabulary[left] + merges.vocabulary[right]] for left, right in merges.pairs]
    done, made = 0, symbols
    for size in sizes:
        # A merge that makes an old token was learned only on the way to a further new one.
        while done < len(merges.pairs) and made < size:
            made = max(made, become[done] + 1)
            waiting = [done]
            while waiting:
                place = heapq.heappop(waiting)
                pair, token = merges.pairs[place], become[place]
                old = token < len(index.token_counts)
                if index.merge(*pair, token) and old:
                    for again in {rank[other] for other in holding.get(token, ()) if rank[other] <= done}:
                        if again not in waiting:
                            heapq.heappush(waiting, again)
            for token in set(merges.pairs[done]):
                holding.setdefault(token, []).append(merges.pairs[done])
            done += 1
        yield index.tokens[index.tokens >= 0]


def _made(merges: Merges) -> int:
    return sum(len(token) > 1 for token in merges.vocabulary)


class _Growing:
    """A vocabulary and merges in the making."""

    def __init__(self, symbols: Sequence[str], vocabulary_size: int) -> None:
        if len(symbols) > vocabulary_size:
            raise BytePairError(
                f"vocabulary_size is {vocabulary_size}, but the texts have {len(symbols)} symbols; expected room "
                "for all."
            )
        self.vocabulary = list(symbols)
        self.pairs: dict[tuple[int, int], int] = {}
        self._ids = {token: place for place, token in enumerate(symbols)}

    def merge(self, left: int, right: int) -> int:
        """Take a pair among the merges and return the token that it becomes."""
        token = self.vocabulary[left] + self.vocabulary[right]
        if token not in self._ids:
            self._ids[token] = len(self.vocabulary)
            self.vocabulary.append(token)
        return self.pairs.setdefault((left, right), self._ids[token])

    def result(self) -> Merges:
        return Merges(tuple(self.vocabulary), tuple(self.pairs))


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
    symbols = _symbols(pieces, alphabet)
    growing, index = _Growing(symbols, vocabulary_size), PairIndex.of_pieces(pieces, symbols)
    while len(growing.vocabulary) < vocabulary_size and (most := index.counts.max(initial=0)) > 0:
        left, right = index.lowest(np.flatnonzero(index.counts == most))
        index.merge(left, right, growing.merge(left, right))
    return growing.result()


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
    symbols = _symbols([text], alphabet)
    growing = _Growing(symbols, vocabulary_size)
    merges = vocabulary_size - len(symbols)
    if merges == 0:
        return growing.result()
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
            left, right = pairs[counts.argmax()].tolist()
            index.merge(left, right, growing.merge(left, right))
    return growing.result()


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


def _symbols(texts: Iterable[str], alphabet: str) -> list[str]:
    return sorted(set(alphabet).union(*texts))
