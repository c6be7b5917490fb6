"""BPE over units: round trips, the first merge by brute force, boundaries that hold."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokenizers.audio.unit_bpe import UnitBPEError, collapsed, load, train, train_random

SIZE = 6
utterances = st.lists(st.lists(st.integers(0, SIZE - 1), max_size=15), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40)
@given(utterances, st.lists(st.integers(0, SIZE - 1), max_size=20), st.integers(SIZE, 20))
def test_expansion_gives_back_any_sequence_also_of_neighbours_never_seen(corpus, units, size):
    tokenizer = train(corpus, size, base_size=SIZE)
    tokens = tokenizer.encode(units)
    assert tokenizer.decode(tokens) == units
    assert len(tokens) <= len(units)
    assert all(0 <= token < tokenizer.vocabulary_size <= size for token in tokens)


@settings(deadline=None, max_examples=40)
@given(utterances)
def test_the_first_merge_is_the_most_frequent_pair(corpus):
    pairs = Counter(pair for units in corpus for pair in itertools.pairwise(units))
    tokenizer = train(corpus, SIZE + 1, base_size=SIZE)
    if not pairs:
        assert tokenizer.vocabulary_size == SIZE
    else:
        assert pairs[tokenizer.expansions[SIZE]] == max(pairs.values())


def test_more_merges_never_make_more_tokens():
    corpus = [[0, 1, 2, 0, 1, 2, 3], [0, 1, 4, 4, 0, 1, 2]] * 3
    counts = [
        sum(len(train(corpus, size, base_size=SIZE).encode(units)) for units in corpus) for size in range(SIZE, 16)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


def test_merges_cross_no_utterance_and_with_a_separator_no_word():
    # Between utterances stands (5, 5), the most frequent pair if boundaries were no boundaries.
    corpus = [[5, 0, 1, 5]] * 9
    assert (5, 5) not in train(corpus, 12, base_size=SIZE).expansions
    words = [[0, 1, 5, 0, 1, 5, 0, 1]] * 4
    apart, across = (train(words, 12, base_size=SIZE, separator=mark).expansions for mark in (5, None))
    assert not any(len(units) > 1 and 5 in units for units in apart)
    assert any(len(units) > 1 and 5 in units for units in across)


@settings(deadline=None, max_examples=40)
@given(utterances, st.lists(st.integers(0, SIZE - 1), max_size=20), st.integers(0, 99))
def test_random_merges_are_of_neighbours_and_invertible(corpus, units, seed):
    one, two = (
        train_random(corpus, SIZE + 5, base_size=SIZE, generator=torch.Generator().manual_seed(seed)) for _ in range(2)
    )
    assert one.expansions == two.expansions
    assert one.decode(one.encode(units)) == units
    encoded = [one.encode(each) for each in corpus]
    # Every merge was there to be made, so it stood as neighbours in some utterance.
    for expansion in one.expansions[SIZE:]:
        size = len(expansion)
        assert any(expansion == tuple(each[at : at + size]) for each in corpus for at in range(len(each) - size + 1))
    if one.vocabulary_size < SIZE + 5:
        # No pair was left that would have been a new token.
        left = {one.expansions[a] + one.expansions[b] for each in encoded for a, b in itertools.pairwise(each)}
        assert left <= set(one.expansions)


def test_a_run_of_equal_units_is_merged_in_pairs_from_the_left():
    made = train_random([[3, 3, 3, 3, 3]], SIZE + 1, base_size=SIZE, generator=torch.Generator())
    assert made.expansions[SIZE] == (3, 3)
    assert made.encode([3, 3, 3, 3, 3]) == [SIZE, SIZE, 3]


def test_random_pairs_are_drawn_whatever_their_frequency():
    corpus = [[0, 1] * 50, [2, 3]]
    firsts = {
        train_random(corpus, SIZE + 1, base_size=SIZE, generator=torch.Generator().manual_seed(seed)).expansions[SIZE]
        for seed in range(40)
    }
    assert firsts == {(0, 1), (1, 0), (2, 3)}


def test_a_saved_tokenizer_is_read_back(tmp_path):
    tokenizer = train([[0, 1, 0, 1, 2]] * 3, 9, base_size=SIZE)
    tokenizer.save(tmp_path / "units.json")
    again = load(tmp_path / "units.json")
    assert again.expansions == tokenizer.expansions
    assert again.encode([0, 1, 0, 1, 5]) == tokenizer.encode([0, 1, 0, 1, 5])


def test_runs_of_equal_units_become_one():
    assert collapsed([3, 3, 1, 1, 1, 3]) == [3, 1, 3]


def test_units_and_tokens_out_of_range_are_named():
    with pytest.raises(UnitBPEError, match="Unit 6"):
        train([[6]], 9, base_size=SIZE)
    with pytest.raises(UnitBPEError, match="vocabulary_size 3"):
        train([], 3, base_size=SIZE)
    tokenizer = train([[0, 1]], SIZE, base_size=SIZE)
    with pytest.raises(UnitBPEError, match="Unit -1"):
        tokenizer.encode([-1])
    with pytest.raises(UnitBPEError, match="Token 6"):
        tokenizer.decode([6])


def test_in_a_run_of_equal_units_every_second_one_starts_a_pair():
    # 0 0 0 0 0 becomes A A 0, whose neighbours are A A and A 0: another merge can be drawn.
    tokens = train_random([[0] * 5], 3, base_size=1, generator=torch.Generator().manual_seed(0))
    assert tokens.expansions[1] == (0, 0)
    assert tokens.expansions[2] in {(0,) * 3, (0,) * 4}
