from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokenizers.text.pair_index import PairIndex

PIECES = st.dictionaries(st.text("abc", max_size=9), st.integers(1, 4), min_size=1, max_size=5)


def counted(words: list[tuple[list[int], int]]) -> tuple[Counter, Counter]:
    pairs, tokens = Counter(), Counter()
    for word, weight in words:
        for token in word:
            tokens[token] += weight
        for pair in pairwise(word):
            pairs[pair] += weight
    return pairs, tokens


def replaced(word: list[int], pair: tuple[int, int], token: int) -> list[int]:
    done, place = [], 0
    while place < len(word):
        here = tuple(word[place : place + 2]) == pair
        done.append(token if here else word[place])
        place += 2 if here else 1
    return done


@settings(max_examples=60, deadline=None)
@given(PIECES, st.randoms(use_true_random=False))
def test_counts_of_pairs_and_tokens_stay_those_of_the_merged_text(pieces, random):
    index = PairIndex.of_pieces(pieces, "abc")
    words = [(["abc".index(symbol) for symbol in piece], count) for piece, count in pieces.items()]
    for size in range(3, 9):
        # Some of these pairs never occur.
        pair = (random.randrange(size), random.randrange(size))
        before = counted(words)[1]
        words = [(replaced(word, pair, size), count) for word, count in words]
        pairs, tokens = counted(words)
        assert index.merge(*pair, size) == (sum(before.values()) - sum(tokens.values()))
        left, right = index.pairs
        found = {(int(a), int(b)): int(c) for a, b, c in zip(left, right, index.counts, strict=True) if c}
        assert found == dict(pairs)
        assert {place: count for place, count in enumerate(index.token_counts.tolist()) if count} == dict(tokens)
        assert index.tokens[index.tokens >= 0].tolist() == [token for word, _ in words for token in word]
        assert len(index.token_counts) == size + 1


def test_the_lowest_of_equal_pairs_is_by_the_left_token_first():
    index = PairIndex.of_pieces({"cab": 1, "bc": 1}, "abc")
    assert index.counts.tolist() == [1, 1, 1]
    assert index.lowest(np.arange(3)) == (0, 1)
    assert index.lowest(np.flatnonzero(index.pairs[0] > 0)) == (1, 2)


def test_chunks_are_pieces_of_one_length_and_the_rest_stays_out():
    index = PairIndex.of_chunks("abcabcab", 3, "abc")
    assert index.tokens.tolist() == [0, 1, 2, 0, 1, 2]
    assert sorted(zip(*(part.tolist() for part in index.pairs), strict=True)) == [(0, 1), (1, 2)]
