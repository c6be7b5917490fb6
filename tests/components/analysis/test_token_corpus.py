from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.analysis.token_corpus import CorpusError, TokenCorpus

corpora = st.lists(st.lists(st.integers(0, 4), max_size=7), min_size=1, max_size=6).filter(any)


@given(corpora, st.integers(1, 4))
def test_n_grams_are_those_of_every_document_by_itself(documents, n):
    corpus = TokenCorpus.of(documents, 5)
    expected = Counter(tuple(d[i : i + n]) for d in documents for i in range(len(d) - n + 1))
    if not expected:
        with pytest.raises(CorpusError, match="shorter"):
            corpus.grams(n)
        return
    grams = corpus.grams(n)
    assert sorted(grams.counts[grams.counts > 0].tolist()) == sorted(expected.values())
    if n > 1:
        assert grams.count == len(expected)
    spelled = {}
    owners = [d for d, document in enumerate(documents) for _ in range(len(document) - n + 1)]
    runs = [tuple(d[i : i + n]) for d in documents for i in range(len(d) - n + 1)]
    assert grams.documents.tolist() == owners
    for kind, run in zip(grams.types.tolist(), runs, strict=True):
        assert spelled.setdefault(kind, run) == run
    assert len(set(spelled.values())) == len(spelled)


@given(corpora, st.integers(0, 2**32))
def test_shuffling_keeps_every_document_s_tokens(documents, seed):
    corpus = TokenCorpus.of(documents, 5)
    shuffled = corpus.shuffled(np.random.default_rng(seed))
    for before, after in zip(corpus.document_tokens, shuffled.document_tokens, strict=True):
        assert sorted(before.tolist()) == sorted(after.tolist())
    assert np.array_equal(shuffled.starts, corpus.starts)


@given(corpora, st.data())
def test_the_first_tokens_are_a_prefix_and_keep_their_documents(documents, data):
    corpus = TokenCorpus.of(documents, 5)
    count = data.draw(st.integers(1, len(corpus.tokens)))
    part = corpus.first(count)
    assert part.tokens.tolist() == corpus.tokens[:count].tolist()
    assert part.document_of.tolist() == corpus.document_of[:count].tolist()
    assert part.starts[-1] == count
    with pytest.raises(CorpusError, match="fewer"):
        corpus.first(len(corpus.tokens) + 1)


def test_documents_are_taken_in_the_order_asked_for_with_their_names():
    corpus = TokenCorpus.of([[0], [1, 2], []], 3, ["a", "b", "c"]).take(np.array([1, 2, 1]))
    assert (corpus.names, corpus.tokens.tolist(), corpus.lengths.tolist()) == (("b", "c", "b"), [1, 2, 1, 2], [2, 0, 2])


def test_ids_outside_the_vocabulary_and_empty_corpora_are_refused():
    for documents in ([[0, 3]], [[-1]], [[]], []):
        with pytest.raises(CorpusError, match="from 0 to 2"):
            TokenCorpus.of(documents, 3)
    with pytest.raises(CorpusError, match="one each"):
        TokenCorpus.of([[0], [1]], 3, ["a"])
