"""The trigram against its recursion written out, and the sum of every law."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.word_trigram import WordTrigram, WordTrigramError

SIZE = 3
texts = st.lists(st.lists(st.integers(0, SIZE - 1), max_size=4), min_size=1, max_size=5)


def written_out(sentences, history, word) -> float:
    if history is None:
        return 1 / (SIZE + 1)
    followers = Counter()
    for sentence in sentences:
        marked = [SIZE + 1, SIZE + 1, *sentence, SIZE]
        for place in range(2, len(marked)):
            if tuple(marked[place - len(history) : place]) == history:
                followers[marked[place]] += 1
    shorter = written_out(sentences, history[1:] if history else None, word)
    if not followers:
        return shorter
    return (followers[word] + len(followers) * shorter) / (sum(followers.values()) + len(followers))


@settings(deadline=None)
@given(texts, st.integers(0, SIZE + 1), st.integers(0, SIZE + 1))
def test_every_law_is_the_recursion_and_sums_to_one(sentences, older, newer):
    model = WordTrigram(sentences, SIZE)
    words = torch.arange(SIZE + 1)
    law = model.log_probability(torch.full_like(words, older), torch.full_like(words, newer), words).exp()
    assert float(law.sum()) == pytest.approx(1)
    for word in words.tolist():
        # A word stands before no start mark, so such histories are never seen and back off alike.
        assert float(law[word]) == pytest.approx(written_out(sentences, (older, newer), word))


def test_a_word_outside_and_no_text_are_refused():
    with pytest.raises(WordTrigramError, match="word 7"):
        WordTrigram([[7]], SIZE)
    with pytest.raises(WordTrigramError, match="no sentence"):
        WordTrigram([], SIZE)
