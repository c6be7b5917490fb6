from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokenizers.text.max_prefix import MaxPrefixTokenizer, load
from components.tokenizers.text.trie import UnknownSymbol, VocabularyError, VocabularyTrie

extra_tokens = st.lists(st.text("ab", min_size=2, max_size=4), max_size=5, unique=True)


def greedy(vocabulary: list[str], text: str) -> list[str]:
    tokens = []
    while text:
        tokens.append(max((token for token in vocabulary if text.startswith(token)), key=len))
        text = text[len(tokens[-1]) :]
    return tokens


@settings(deadline=None, derandomize=True, max_examples=80)
@given(extra_tokens, st.lists(st.text("ab", max_size=12), min_size=1, max_size=4))
def test_it_always_takes_the_longest_token(extra, texts):
    tokenizer = MaxPrefixTokenizer(["a", "b", *extra])
    several = tokenizer.first_tokens(texts, 12)
    for text, row in zip(texts, several, strict=True):
        tokens = tokenizer.encode(text)
        assert [tokenizer.vocabulary[token] for token in tokens] == greedy(tokenizer.vocabulary, text)
        assert tokenizer.decode(tokens) == text
        assert row[row >= 0].tolist() == tokens
        assert tokenizer.first_tokens([text], 2)[0].tolist() == [*tokens, -1, -1][:2]


@settings(deadline=None, derandomize=True, max_examples=25)
@given(extra_tokens)
def test_the_cuts_called_certain_are_exactly_those_that_all_continuations_share(extra):
    tokenizer = MaxPrefixTokenizer(["a", "b", *extra])
    reach = tokenizer.trie.longest
    continuations = ["".join(letters) for n in range(reach + 1) for letters in product("ab", repeat=n)]
    for length in range(7):
        for letters in product("ab", repeat=length):
            text = "".join(letters)
            tokens = tokenizer.encode(text)
            longer = [tokenizer.encode(text + more) for more in continuations]
            shared = [cut for cut in range(len(tokens) + 1) if all(other[:cut] == tokens[:cut] for other in longer)]
            assert shared == list(range(tokenizer.certain_tokens(text) + 1)), (tokenizer.vocabulary, text)


def test_a_token_without_extension_is_no_certain_cut():
    tokenizer = MaxPrefixTokenizer(["A", "B", "ABB"])
    assert tokenizer.encode("AB") == [0, 1]
    assert tokenizer.certain_tokens("AB") == 0
    assert tokenizer.certain_tokens("ABA") == 2
    assert tokenizer.certain_tokens("BB") == 2


@settings(deadline=None, derandomize=True, max_examples=60)
@given(extra_tokens, st.text("ab", max_size=5))
def test_the_trie_finds_the_tokens_that_begin_with_a_string(extra, text):
    trie = VocabularyTrie(["b", "a", *extra])
    expected = sorted(token for token in trie.vocabulary if token.startswith(text))
    assert [trie.vocabulary[token] for token in trie.below(text)] == expected
    codes, lengths = trie.code_matrix(["ab" + text])
    walked = trie.walk(codes, np.array([2]), lengths)
    assert walked[0] == trie.node(text) or not expected


def test_saving_and_reading_changes_nothing(tmp_path: Path):
    tokenizer = MaxPrefixTokenizer(["é", "B", "éB"])
    tokenizer.save(tmp_path / "tokenizer.json")
    assert load(tmp_path / "tokenizer.json").vocabulary == tokenizer.vocabulary


def test_an_unknown_symbol_is_named():
    with pytest.raises(UnknownSymbol, match="'C'"):
        MaxPrefixTokenizer(["A", "B"]).encode("ABC")
    with pytest.raises(UnknownSymbol, match="'C'"):
        MaxPrefixTokenizer(["A", "B"]).first_tokens(["A", "ABC"], 2)


@pytest.mark.parametrize("vocabulary", [[], ["A", ""], ["A", "A"], ["A", "AB"]])
def test_a_vocabulary_that_cannot_spell_its_tokens_is_refused(vocabulary):
    with pytest.raises(VocabularyError):
        MaxPrefixTokenizer(vocabulary)
