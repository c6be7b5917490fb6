"""Words of pieces, sums over words and masses of groups against loops by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from components.analysis.attribution import AttributionError
from components.analysis.attribution_groups import (
    group_ratio,
    labelled_pair,
    mass_by_labels,
    permuted_ratios,
    sum_over_words,
    word_spans,
    words_of_pieces,
)

TAGS = ["NOUN", "VERB", "DET", "NOUN"]


def pair_of(seed: int, tags_a=TAGS, tags_b=TAGS, matrix=None):
    matrix = np.random.default_rng(seed).normal(size=(len(tags_a), len(tags_b))) if matrix is None else matrix
    return labelled_pair(matrix, range(len(tags_a)), range(len(tags_b)), tags_a, tags_b)


def test_words_are_placed_in_order_with_only_white_space_between():
    assert word_spans("I don't  know.", ["I", "do", "n't", "know", "."]) == [(0, 1), (2, 4), (4, 7), (9, 13), (13, 14)]
    assert word_spans("zum Haus", ["zu", "dem", "Haus"]) is None
    assert word_spans("one two three", ["one", "two"]) is None


def test_pieces_belong_to_the_word_in_which_they_begin():
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "gonna": 1, "play": 2, "##ing": 3, "!": 4}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    text, forms = "Gonna playing !", ["Gon", "na", "playing", "!"]
    offsets = [(0, 0), *tokenizer.encode(text).offsets, (0, 0)]
    assert words_of_pieces(offsets, word_spans(text, forms)) == [-1, 0, 2, 2, 3, -1]
    with pytest.raises(AttributionError, match="begins in no word"):
        words_of_pieces([(3, 4)], [(0, 2)])


def test_sums_over_words_are_those_of_a_double_loop_and_leave_out_what_is_no_word():
    matrix = np.random.default_rng(0).normal(size=(5, 6))
    words_a, words_b = [-1, 0, 2, 2, -1], [-1, 0, 1, 1, 1, -1]
    expected = np.zeros((3, 2))
    for i, j in itertools.product(range(5), range(6)):
        if words_a[i] >= 0 and words_b[j] >= 0:
            expected[words_a[i], words_b[j]] += matrix[i, j]
    assert sum_over_words(matrix, words_a, words_b) == pytest.approx(expected)
    held = labelled_pair(matrix, words_a, words_b, ["NOUN", "lost", "VERB"], ["DET", "NOUN"])
    assert held.labels_a.tolist() == ["NOUN", "VERB"]
    assert held.mass.mean() == pytest.approx(1)


def test_a_ratio_counts_every_pair_of_words_of_all_texts_once():
    pairs = [pair_of(seed, tags_b=["VERB", "NOUN", "X"]) for seed in range(3)]
    inside = [
        pair.mass[i, j]
        for pair in pairs
        for i, j in itertools.product(range(4), range(3))
        if pair.labels_a[i] == "NOUN" == pair.labels_b[j]
    ]
    assert group_ratio(pairs, {"NOUN"}) == pytest.approx(np.mean(inside))
    assert group_ratio(pairs, {"NOUN", "VERB", "DET", "X"}) == pytest.approx(1)
    masses = mass_by_labels(pairs)
    assert masses["NOUN", "NOUN"] == (pytest.approx(np.mean(inside)), len(inside))
    assert sum(count for _, count in masses.values()) == 36
    assert sum(mean * count for mean, count in masses.values()) == pytest.approx(36)
    assert all(a <= b for a, b in masses)


def test_permutations_are_those_of_the_labels_of_each_text():
    pair = pair_of(1, ["NOUN", "X", "X"], ["NOUN", "NOUN", "X"])
    orders = [
        pair.mass[i, [j for j in range(3) if j != left]].mean() for i, left in itertools.product(range(3), range(3))
    ]
    drawn = permuted_ratios([pair], {"NOUN"}, 4000, np.random.default_rng(0))
    values, counts = np.unique(drawn.round(9), return_counts=True)
    assert values == pytest.approx(np.sort(orders))
    assert counts == pytest.approx(np.full(9, 4000 / 9), abs=90)


def test_a_planted_preference_stands_out_of_permutations_and_its_absence_does_not():
    planted = []
    for seed in range(12):
        matrix = np.random.default_rng(seed).uniform(0.5, 1.5, size=(4, 4))
        matrix[np.ix_([0, 3], [0, 3])] *= 2
        planted.append(pair_of(seed, matrix=matrix))
    drawn = permuted_ratios(planted, {"NOUN"}, 500, np.random.default_rng(1))
    assert (drawn >= group_ratio(planted, {"NOUN"})).mean() < 0.01
    plain = [pair_of(seed) for seed in range(12)]
    drawn = permuted_ratios(plain, {"VERB"}, 500, np.random.default_rng(1))
    assert 0.05 < (drawn >= group_ratio(plain, {"VERB"})).mean() < 0.95


def test_groups_that_do_not_occur_and_texts_without_words_are_refused():
    with pytest.raises(AttributionError, match="labelled INTJ"):
        group_ratio([pair_of(0)], {"INTJ"})
    with pytest.raises(AttributionError, match="labelled INTJ"):
        permuted_ratios([pair_of(0)], {"INTJ"}, 3, np.random.default_rng(0))
    with pytest.raises(AttributionError, match="no words"):
        labelled_pair(np.ones((1, 1)), [-1], [0], [], ["X"])
    with pytest.raises(AttributionError, match="are zero"):
        labelled_pair(np.zeros((1, 1)), [0], [0], ["X"], ["X"])
