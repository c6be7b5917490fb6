from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokenizers.text import encoders
from components.tokenizers.text.encoders import MinimalTokenizer, greedy, load, longest_matches, minimal
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.trie import UnknownSymbol, VocabularyTrie
from components.tokenizers.text.validity import is_valid

VOCABULARIES = st.sets(st.text("ab", min_size=2, max_size=6), max_size=12).map(lambda more: ["a", "b", *sorted(more)])


def shortest(text: str, vocabulary: list[str]) -> list[str]:
    """The fewest tokens by the recursion, from the end of the text; of equal ways the longest token first."""
    best: list[list[str]] = [[]]
    for start in range(len(text) - 1, -1, -1):
        ways = [[token, *best[len(text) - start - len(token)]] for token in vocabulary if text.startswith(token, start)]
        best.append(min(ways, key=lambda way: (len(way), -len(way[0]))))
    return best[-1]


@settings(max_examples=80, deadline=None)
@given(VOCABULARIES, st.text("ab", max_size=60))
def test_both_encoders_follow_their_definitions(vocabulary, text):
    trie = VocabularyTrie(vocabulary)
    codes = trie.codes(text)
    assert greedy(trie, codes).tolist() == MaxPrefixTokenizer(vocabulary).encode(text)
    fewest = [vocabulary[token] for token in minimal(trie, codes)]
    assert "".join(fewest) == text
    assert fewest == shortest(text, vocabulary)


@settings(max_examples=60, deadline=None)
@given(VOCABULARIES, st.text("ab", max_size=200), st.sampled_from([1, 3, 17]), st.sampled_from([1, 2, 8]))
def test_lanes_of_any_length_and_overlap_give_the_same_tokens(vocabulary, text, lane, overlap):
    trie = VocabularyTrie(vocabulary)
    codes = trie.codes(text)
    whole = minimal(trie, codes).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "_LANE", lane)
        patch.setattr(encoders, "_OVERLAP", overlap)
        patch.setattr(encoders, "_TOGETHER", 5 * lane * trie.longest)
        assert minimal(trie, codes).tolist() == whole
        patch.setattr(encoders, "_BLOCK", lane)
        assert greedy(trie, codes).tolist() == MaxPrefixTokenizer(vocabulary).encode(text)


def test_a_text_whose_lanes_never_agree_is_worked_out_from_its_end():
    # With tokens A and AA every place depends on the parity of the text, however far behind a lane begins.
    trie = VocabularyTrie(["A", "AA"])
    for length in (5000, 5001):
        tokens = minimal(trie, np.zeros(length, np.int64))
        assert len(tokens) == -(-length // 2)
        assert tokens.sum() == length // 2


def test_no_encoding_has_fewer_tokens_than_the_minimal_one():
    vocabulary = ["a", "b", "ab", "ba", "bab", "abb", "abba"]
    trie = VocabularyTrie(vocabulary)
    for letters in product("ab", repeat=9):
        codes = trie.codes("".join(letters))
        assert len(minimal(trie, codes)) <= len(greedy(trie, codes))
    text = trie.codes("abbabb" * 50)
    assert len(minimal(trie, text)) < len(greedy(trie, text))


def test_matches_at_the_end_of_a_block_see_the_symbols_behind_it():
    trie = VocabularyTrie(["a", "b", "abab"])
    codes = np.tile([0, 1], encoders._BLOCK)
    tokens, lengths = longest_matches(trie, codes)
    assert lengths[:-3:2].tolist() == [4] * (len(codes) // 2 - 1)
    assert tokens[-4:].tolist() == [2, 1, 0, 1]


def test_the_minimal_tokenizer_has_the_interface_of_all(tmp_path):
    tokenizer = MinimalTokenizer(["a", "b", "aa", "aab"])
    assert tokenizer.decode(tokenizer.encode("aaab")) == "aaab"
    assert [tokenizer.vocabulary[token] for token in tokenizer.encode("aaab")] == ["a", "aab"]
    assert tokenizer.encode("") == []
    assert tokenizer.certain_tokens("aaab") == 0
    assert tokenizer.validity_memory((0, 3)) == (0, 3)
    assert is_valid(tokenizer, (0, 3))
    assert not is_valid(tokenizer, (2, 0, 1))
    tokenizer.save(tmp_path / "tokenizer.json")
    assert load(tmp_path / "tokenizer.json").vocabulary == tokenizer.vocabulary
    with pytest.raises(UnknownSymbol, match="c"):
        tokenizer.encode("abc")
