import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from components.analysis.document_bootstrap import document_weights, drawn_documents
from components.analysis.granularity import (
    GranularityError,
    agreement,
    contingencies,
    expected_information,
    majority_labels,
    one_segment_share,
    permuted_within_images,
    resampled_ami,
)

cells = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=4, max_size=60)


@settings(max_examples=50, deadline=None)
@given(cells)
def test_agreement_is_that_of_the_library(pairs):
    tokens, labels = (np.array(column)[None] for column in zip(*pairs, strict=True))
    table = contingencies(tokens, labels).sum(0)
    found = agreement(table)
    scores = metrics.homogeneity_completeness_v_measure(labels[0], tokens[0])
    assert (found.homogeneity, found.completeness, found.v_measure) == pytest.approx(scores, abs=1e-9)
    expected = metrics.cluster.expected_mutual_information(table.astype(np.int64), len(pairs))
    assert expected_information(table) == pytest.approx(expected, abs=1e-9)
    room = (metrics.cluster.entropy(tokens[0]) + metrics.cluster.entropy(labels[0])) / 2 - expected
    if room > 1e-6:
        assert found.ami == pytest.approx(metrics.adjusted_mutual_info_score(labels[0], tokens[0]), abs=1e-6)


def test_a_token_that_names_the_label_agrees_entirely_and_permuted_labels_by_chance():
    generator = np.random.default_rng(0)
    labels = generator.integers(6, size=(200, 16))
    tokens = (labels * 7 + 3) % 6
    perfect = agreement(contingencies(tokens, labels).sum(0))
    assert (perfect.v_measure, perfect.ami) == pytest.approx((1, 1))
    mixed = generator.permutation(labels.ravel()).reshape(labels.shape)
    permuted = agreement(contingencies(tokens, mixed).sum(0))
    assert permuted.ami == pytest.approx(0, abs=0.01)


def test_finer_labels_do_not_agree_more_by_chance_alone():
    generator = np.random.default_rng(1)
    tokens = generator.integers(60, size=(300, 8))
    few, many = generator.integers(2, size=(300, 8)), generator.integers(40, size=(300, 8))
    found = [agreement(contingencies(tokens, labels).sum(0)) for labels in (few, many)]
    assert found[1].v_measure > found[0].v_measure + 0.1
    assert [each.ami for each in found] == pytest.approx([0, 0], abs=0.01)


def test_labels_that_only_tell_pictures_apart_are_explained_by_the_null():
    generator = np.random.default_rng(2)
    picture = generator.integers(4, size=(100, 1))
    tokens = picture + np.zeros((1, 9), int)
    labels = np.where(generator.random((100, 9)) < 0.5, picture, 9)
    found, null = (
        agreement(contingencies(tokens, part).sum(0)).ami
        for part in (labels, permuted_within_images(labels, generator))
    )
    assert found == pytest.approx(null)
    assert found > 0.2


def test_resampling_every_image_once_gives_the_agreement_itself():
    generator = np.random.default_rng(3)
    labels = generator.integers(4, size=(50, 16))
    tokens = np.where(generator.random(labels.shape) < 0.6, labels, generator.integers(30, size=labels.shape))
    tables = contingencies(tokens, labels)
    assert resampled_ami(tables, np.ones((1, 50), int)) == pytest.approx([agreement(tables.sum(0)).ami])
    drawn = drawn_documents(50, 20, generator)
    exact = [agreement(tables[order].sum(0)).ami for order in drawn]
    assert resampled_ami(tables, document_weights(drawn, 50)) == pytest.approx(exact, abs=0.01)


def test_cells_bear_the_label_of_most_of_their_pixels_row_by_row():
    labels = np.zeros((1, 4, 4), int)
    labels[0, 0, 2:] = labels[0, 1, 3] = 2
    labels[0, 2:, :2] = [[1, 1], [0, 0]]
    assert majority_labels(labels, 2, 3).tolist() == [[0, 2, 0, 0]]
    assert majority_labels(labels, 4, 3).reshape(4, 4).tolist() == labels[0].tolist()
    with pytest.raises(GranularityError, match="resize"):
        majority_labels(labels, 3, 3)


def test_the_chance_of_one_segment_counts_pairs_of_equal_tokens_inside_an_image():
    tokens = np.array([[5, 5, 5, 1], [5, 2, 2, 3]])
    segments = np.array([[0, 0, 1, 0], [0, 1, 1, 1]])
    # Pairs: three of token 5 in the first image, one of them together; one of token 2 in the second, together.
    assert one_segment_share(tokens, segments) == 2 / 4
    assert one_segment_share(np.array([[1, 2]]), np.array([[0, 0]])) == 1


def test_tokens_without_labels_are_refused():
    with pytest.raises(GranularityError, match="one label per token"):
        contingencies(np.zeros((2, 3), int), np.zeros((3, 2), int))
