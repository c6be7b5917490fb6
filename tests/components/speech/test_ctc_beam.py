"""Beam search against every transcript's exact score: all strings, and all word sequences of a lexicon."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.word_trigram import WordTrigram
from components.speech.ctc import ctc_loss, greedy, padded
from components.speech.ctc_beam import BeamSearch, BeamSearchError, Lexicon
from tests.components.speech.test_ctc import drawn, enumerated

LABELS = {" ": 1, "a": 2, "b": 3}
WORDS = ("a", "ab", "ba", "bb")


@settings(deadline=None, max_examples=25)
@given(frames=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_wide_beam_finds_the_most_likely_string_with_its_whole_probability(frames, seed):
    log_probabilities = drawn(frames, 3, seed)
    law = enumerated(log_probabilities[0])
    (found,), score = BeamSearch(200)(log_probabilities, torch.tensor([frames]))
    assert law[tuple(found)] == pytest.approx(max(law.values()))
    assert float(score) == pytest.approx(math.log(law[tuple(found)]))


def test_merging_beats_the_best_path():
    # Graves 2006: the blank path is the best single one, but "1" has three paths.
    row = torch.tensor([0.6, 0.4], dtype=torch.float64).log()
    log_probabilities = row.expand(1, 2, 2)
    assert greedy(log_probabilities, torch.tensor([2])) == [[]]
    (found,), score = BeamSearch(4)(log_probabilities, torch.tensor([2]))
    assert found == [1]
    assert float(score.exp()) == pytest.approx(0.4 * 0.4 + 2 * 0.6 * 0.4)


def spelled(words) -> list[int]:
    return [LABELS[character] for character in " ".join(WORDS[word] for word in words)]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 200))
def test_with_a_lexicon_the_best_word_sequence_wins_under_acoustics_language_and_bonus(seed):
    frames, alpha, beta = 6, 0.8, 0.3
    language = WordTrigram([[0, 1], [1, 2, 0], [2], [2, 0]], len(WORDS))
    search = BeamSearch(
        400, lexicon=Lexicon.of(WORDS, LABELS), language=language, language_weight=alpha, word_bonus=beta
    )
    log_probabilities = drawn(frames, 4, seed)
    scores = {}
    for count in range(4):
        for words in itertools.product(range(len(WORDS)), repeat=count):
            if len(spelled(words)) > frames:
                continue
            labels, lengths = padded([spelled(words)])
            acoustic = -float(ctc_loss(log_probabilities, torch.tensor([frames]), labels, lengths))
            marked = [language.start, language.start, *words, language.end]
            nats = sum(
                float(language.log_probability(*(torch.tensor(each) for each in marked[at : at + 3])))
                for at in range(len(marked) - 2)
            )
            scores[tuple(spelled(words))] = acoustic + alpha * nats + beta * count
            # A space at the end says nothing more; it is a string of its own for the network.
            if words:
                labels, lengths = padded([[*spelled(words), 1]])
                trailing = -float(ctc_loss(log_probabilities, torch.tensor([frames]), labels, lengths))
                scores[(*spelled(words), 1)] = trailing + alpha * nats + beta * count
    (found,), score = search(log_probabilities, torch.tensor([frames]))
    assert float(score) == pytest.approx(max(scores.values()))
    assert scores[tuple(found)] == pytest.approx(max(scores.values()))


def test_the_language_model_is_asked_with_the_two_words_before():
    alpha, words = 0.8, [1, 2, 1]
    language = WordTrigram([[0, 1], [1, 2, 1], [1, 2, 0], [2, 0]], len(WORDS))
    labels = [LABELS[character] for character in "ab ba ab"]
    log_probabilities = torch.full((1, len(labels), 4), -20.0, dtype=torch.float64)
    log_probabilities[0, torch.arange(len(labels)), labels] = -1e-9
    search = BeamSearch(50, lexicon=Lexicon.of(WORDS, LABELS), language=language, language_weight=alpha)
    (found,), score = search(log_probabilities, torch.tensor([len(labels)]))
    marked = [language.start, language.start, *words, language.end]
    nats = sum(
        float(language.log_probability(*(torch.tensor(each) for each in marked[at : at + 3])))
        for at in range(len(marked) - 2)
    )
    assert found == labels
    assert float(score) == pytest.approx(alpha * nats, abs=1e-6)


def by_dictionary(scores: list[list[float]], beams: int) -> tuple[tuple[int, ...], float]:
    """Prefix search with a dictionary of prefixes: probability of a path that ends in a blank, and in a label."""
    known = {(): (1.0, 0.0)}
    for frame in scores:
        after: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, label) in known.items():
            after.setdefault(prefix, [0.0, 0.0])[0] += (blank + label) * frame[0]
            if prefix:
                after[prefix][1] += label * frame[prefix[-1]]
            for symbol in range(1, len(frame)):
                mass = blank if prefix and prefix[-1] == symbol else blank + label
                after.setdefault((*prefix, symbol), [0.0, 0.0])[1] += mass * frame[symbol]
        kept = sorted(after, key=lambda prefix: -sum(after[prefix]))[:beams]
        known = {prefix: tuple(after[prefix]) for prefix in kept}
    best = max(known, key=lambda prefix: sum(known[prefix]))
    return best, sum(known[best])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), beams=st.sampled_from([1, 2, 3, 5, 8]))
def test_a_narrow_beam_keeps_the_prefixes_that_a_dictionary_keeps(seed, beams):
    log_probabilities = drawn(8, 3, seed)
    expected, probability = by_dictionary(log_probabilities[0].exp().tolist(), beams)
    (found,), score = BeamSearch(beams)(log_probabilities, torch.tensor([8]))
    assert tuple(found) == expected
    assert float(score.exp()) == pytest.approx(probability)


def test_a_batch_decodes_each_utterance_as_it_would_alone():
    log_probabilities = drawn(9, 4, count=3)
    frames = torch.tensor([9, 3, 6])
    search = BeamSearch(8)
    together, scores = search(log_probabilities, frames)
    for row in range(3):
        alone, score = search(log_probabilities[row : row + 1, : frames[row]], frames[row : row + 1])
        assert together[row] == alone[0]
        assert float(scores[row]) == pytest.approx(float(score))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), beams=st.sampled_from([2, 3, 5]))
def test_a_narrow_beam_never_claims_more_than_the_string_has(seed, beams):
    log_probabilities = drawn(6, 3, seed)
    law = enumerated(log_probabilities[0])
    (found,), score = BeamSearch(beams)(log_probabilities, torch.tensor([6]))
    assert float(score.exp()) <= law[tuple(found)] * (1 + 1e-9)


def test_a_word_with_a_foreign_letter_and_a_word_given_twice_are_refused():
    with pytest.raises(BeamSearchError, match="'z'"):
        Lexicon.of(["az"], LABELS)
    with pytest.raises(BeamSearchError, match="twice"):
        Lexicon.of(["a", "a"], LABELS)
    with pytest.raises(BeamSearchError, match="together"):
        BeamSearch(2, lexicon=Lexicon.of(WORDS, LABELS))
