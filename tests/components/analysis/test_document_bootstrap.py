import numpy as np
import pytest

from components.analysis.document_bootstrap import (
    bootstrap_variance,
    document_weights,
    drawn_documents,
    resampled_counts,
)
from components.analysis.token_corpus import TokenCorpus


def test_counts_of_a_resample_are_those_of_its_documents():
    generator = np.random.default_rng(0)
    corpus = TokenCorpus.of([generator.integers(6, size=generator.integers(1, 9)) for _ in range(120)], 6)
    drawn = drawn_documents(120, 70, generator)
    found = resampled_counts(corpus.grams(1), drawn)
    for order, counts in zip(drawn, found, strict=True):
        assert counts.tolist() == np.bincount(corpus.take(order).tokens, minlength=6).tolist()
    assert np.array_equal(document_weights(drawn, 120).sum(1), np.full(70, 120))


def test_the_variance_is_that_of_a_mean_over_documents():
    generator = np.random.default_rng(1)
    values = generator.standard_normal(200)
    drawn = drawn_documents(200, 3000, generator)
    assert bootstrap_variance(lambda order: values[order].mean(), drawn) == pytest.approx(values.var() / 200, rel=0.1)
