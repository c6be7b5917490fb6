import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokenizers.text.lexicographic import ENDED, LexicographicVocabulary
from components.tokenizers.text.trie import UnknownSymbol, VocabularyError, VocabularyTrie

vocabularies = st.sets(st.text("abc\x00\xff", min_size=1, max_size=4), min_size=1, max_size=12).map(sorted)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(vocabularies, st.randoms(use_true_random=False))
def test_the_order_is_that_of_the_strings_and_columns_spell_them(tokens, random):
    random.shuffle(tokens)
    words = LexicographicVocabulary(tokens)
    assert [words.vocabulary[token] for token in words.order] == sorted(tokens)
    for place, token in enumerate(words.order.tolist()):
        codes = words.symbols[:, place]
        text = words.vocabulary[token]
        assert "".join(words.alphabet[code] for code in codes[: len(text)]) == text
        assert (codes[len(text) :] == ENDED).all()


@settings(deadline=None, max_examples=40, derandomize=True)
@given(vocabularies, st.text("abc\x00\xff", max_size=5))
def test_tokens_that_begin_with_a_string_are_one_range(tokens, text):
    words = LexicographicVocabulary(tokens)
    if not set(text) <= set(words.alphabet) and len(text) <= words.longest:
        text = "".join(symbol for symbol in text if symbol in words.alphabet)
    low, high = words.below(text)
    assert [words.vocabulary[token] for token in words.order[low:high]] == [
        t for t in sorted(tokens) if t.startswith(text)
    ]
    low, high = words.longer(low, high, len(text))
    longer = [t for t in sorted(tokens) if t.startswith(text) and len(t) > len(text)]
    assert [words.vocabulary[token] for token in words.order[low:high]] == longer


@settings(deadline=None, max_examples=40, derandomize=True)
@given(vocabularies, st.integers(0, 3))
def test_sums_by_symbol_are_those_over_single_tokens(tokens, depth):
    words = LexicographicVocabulary(tokens)
    weights = np.random.default_rng(0).random(len(tokens))
    start = max(tokens, key=len)[:depth]
    low, high = words.longer(*words.below(start), len(start))
    expected = np.zeros(len(words.alphabet))
    for place in range(low, high):
        expected[words.alphabet.index(words.vocabulary[words.order[place]][len(start)])] += weights[place]
    assert words.by_symbol(weights, low, high, len(start)) == pytest.approx(expected)


def test_ranges_are_those_of_the_prefix_tree():
    tokens = ["a", "b", "ab", "abb", "ba", "bab", "aab"]
    words, trie = LexicographicVocabulary(tokens), VocabularyTrie(tokens)
    for text in ("", "a", "ab", "abb", "abba", "b", "bb"):
        low, high = words.below(text)
        assert words.order[low:high].tolist() == trie.below(text).tolist()


def test_a_doubled_token_and_a_strange_symbol_are_refused():
    with pytest.raises(VocabularyError, match="distinct"):
        LexicographicVocabulary(["a", "a"])
    with pytest.raises(VocabularyError, match="non-empty"):
        LexicographicVocabulary(["a", ""])
    with pytest.raises(UnknownSymbol, match="'c'"):
        LexicographicVocabulary(["a", "b"]).below("c")
