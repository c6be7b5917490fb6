"""Scores against hand-made curves, and the detector on an encoder with one planted sticky token."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.analysis import sticky_scan
from components.analysis.sticky_pairs import mean_similarity, pair_sets
from components.analysis.sticky_scan import scan
from components.analysis.sticky_scoring import (
    StickinessError,
    curve_scores,
    distance_curves,
    moved_fractions,
    prepare,
    spread_ratio,
    token_distances,
    token_scores,
)
from components.encoders.random_sentence import random_sentence_encoder

COUNTS = (1, 4, 8)
CURVES = arrays(np.float64, (4,), elements=st.integers(0, 64).map(lambda value: value / 64))


class MeanOfWords:
    """An encoder whose vector is the unit mean of its words' vectors."""

    def __init__(self, vectors: dict[str, torch.Tensor]) -> None:
        self.names = list(vectors)
        self.table = torch.stack(list(vectors.values()))

    def token_ids(self, texts, max_length=256):
        return [[self.names.index(word) for word in text.split()][:max_length] for text in texts]

    def encode_ids(self, rows):
        return torch.stack([torch.nn.functional.normalize(self.table[row].mean(0), dim=0) for row in rows])

    def encode(self, texts):
        return self.encode_ids(self.token_ids(texts))


@pytest.fixture(scope="module")
def planted():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(40, 24, generator=generator) + 0.5
    words = {f"w{place}": vector for place, vector in enumerate(drawn)}
    mean = drawn.mean(0)
    words["X"] = 50 * mean / mean.norm() * drawn.norm(dim=-1).mean()
    encoder = MeanOfWords(words)
    numbers = np.random.default_rng(0)
    sentences = [" ".join(f"w{place}" for place in numbers.choice(40, 7, replace=False)) for _ in range(80)]
    return encoder, sentences, list(words)


def edits_of(encoder, sentences, pairs, counts=COUNTS):
    first = [sentences[row] for row in pairs.first]
    second = [sentences[row] for row in pairs.second]
    return prepare(encoder, first, second, counts, np.random.default_rng(3))


def test_a_planted_token_is_flagged_and_no_other(planted):
    encoder, sentences, words = planted
    centre = mean_similarity(encoder.encode(sentences))
    sets = pair_sets(encoder.encode(sentences), centre, scoring=5, verification=30)
    scoring, checking = (edits_of(encoder, sentences, pairs) for pairs in (sets.scoring, sets.verification))
    distances, _ = distance_curves(encoder, words, scoring)
    scores = token_scores(distances, token_distances(encoder, words, scoring.first))
    assert words[int(scores.argmax())] == "X"
    fractions = moved_fractions(distance_curves(encoder, words, checking)[0]).mean(1)
    assert [word for word, fraction in zip(words, fractions, strict=True) if fraction >= 0.95] == ["X"]


def test_distances_are_those_of_the_edited_texts_one_by_one():
    encoder = random_sentence_encoder([*"abcdefgh"])
    edits = prepare(encoder, ["a b", "c"], ["d e f", "g h"], (0, 1, 4), np.random.default_rng(0))
    distances, realised = distance_curves(encoder, ["h", "[CLS]", "zz"], edits)
    assert distances.shape == (3, 2, 3, 3)
    assert (realised == 1).all()
    assert (distances[..., 0] == edits.start[:, None]).all()
    for pair, (first, second) in enumerate((("a b", "d e f"), ("c", "g h"))):
        for mode, text in enumerate((f"h h h h {second}", f"{second} h h h h")):
            cosine = float(encoder.encode([first])[0] @ encoder.encode([text])[0])
            assert distances[0, pair, mode, 2] == pytest.approx(1 - cosine, abs=1e-6)


def test_a_text_that_is_split_shows_in_the_realised_count():
    encoder = random_sentence_encoder([*"abc", "##b"])
    edits = prepare(encoder, ["a"], ["b c"], (1, 2), np.random.default_rng(0))
    assert distance_curves(encoder, ["ab"], edits)[1].tolist() == [[2.0]]


def test_without_copies_nothing_changes_and_nothing_is_verified():
    encoder = random_sentence_encoder([*"abc"])
    edits = prepare(encoder, ["a", "b"], ["b c", "a"], (0,), np.random.default_rng(0))
    distances, _ = distance_curves(encoder, ["a", "b"], edits)
    assert distances.shape == (2, 2, 3, 1)
    assert (distances[..., 0] == edits.start[:, None]).all()
    assert (moved_fractions(distances) == 0).all()
    assert spread_ratio(distances) == 1


def test_copies_that_would_be_cut_off_are_refused():
    encoder = random_sentence_encoder([*"abc"], positions=300)
    edits = prepare(encoder, ["a"], ["b c"], (300,), np.random.default_rng(0))
    with pytest.raises(StickinessError, match="more than 256 tokens"):
        distance_curves(encoder, ["a"], edits)


def test_a_flat_curve_scores_its_distance_term_alone():
    assert curve_scores(np.full((1, 4), 0.7), np.array([0.6])) == pytest.approx(0.1 * 0.6 / 0.01)


def test_a_curve_scores_what_its_steps_say():
    # falls of 0.3 and 0.1, one rise of 0.2
    score = curve_scores(np.array([0.9, 0.6, 0.8, 0.7]), np.array(0.5))
    assert score == pytest.approx((0.4 + 0.2 + 0.05) / (0.2 + 0.05 + 0.01))


@settings(deadline=None)
@given(CURVES, st.integers(1, 3), st.floats(0, 2))
def test_a_rise_turned_into_an_equal_fall_raises_the_score(curve, step, apart):
    change = np.diff(curve)
    if change[step - 1] <= 0:
        return
    turned = curve.copy()
    turned[step:] -= 2 * change[step - 1]
    assert curve_scores(turned, np.array(apart)) > curve_scores(curve, np.array(apart))


@settings(deadline=None)
@given(arrays(np.float64, (2, 3, 3, 3), elements=st.integers(0, 64).map(lambda value: value / 64)))
def test_verification_is_the_weighted_count_of_modes_that_move(distances):
    below, above = moved_fractions(distances), moved_fractions(distances, toward_first=False)
    for token in range(2):
        for pair in range(3):
            mean, start = distances[token, pair, :, 1:].mean(-1), distances[token, pair, :, 0]
            weights = np.array([4, 4, 3]) / 11
            assert below[token, pair] == pytest.approx(weights[mean < start].sum())
            assert above[token, pair] == pytest.approx(weights[mean > start].sum())


def test_the_spread_ratio_is_that_of_standard_deviations_over_pairs():
    distances = np.random.default_rng(0).random((2, 5, 3, 4))
    expected = np.mean(
        [
            sum(
                w * distances[t, :, m, 3].std() / distances[t, :, m, 0].std()
                for m, w in enumerate((4 / 11, 4 / 11, 3 / 11))
            )
            for t in range(2)
        ]
    )
    assert spread_ratio(distances) == pytest.approx(expected)
    with pytest.raises(StickinessError, match="at least 2"):
        spread_ratio(distances[:, :1])


def test_a_scan_that_was_interrupted_gives_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(sticky_scan, "BLOCK", 3)
    encoder = random_sentence_encoder([*"abcdefgh"])
    edits = prepare(encoder, ["a b", "c"], ["d e f", "g h"], COUNTS, np.random.default_rng(0))
    tokens = list("abcdefgh")
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = scan(encoder, tokens, edits, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 6:
            raise Stopped

    with pytest.raises(Stopped):
        scan(encoder, tokens, edits, tmp_path / "broken", progress=stop)
    assert len(list((tmp_path / "broken").iterdir())) == 2
    measured = []
    monkeypatch.setattr(
        sticky_scan, "distance_curves", lambda *args: measured.append(args[1]) or distance_curves(*args)
    )
    resumed = scan(encoder, tokens, edits, tmp_path / "broken")
    assert measured == [["g", "h"]]
    for one, other in zip(whole, resumed, strict=True):
        assert np.array_equal(one, other)
