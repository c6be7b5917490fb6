import math

import numpy as np
import pytest
import torch

from components.analysis.embedding_alignment import (
    AlignmentError,
    align,
    cooccurrences,
    directed_hausdorff,
    glove,
    hausdorff,
    iterated_nearest,
    procrustes,
    standardised,
)
from components.analysis.token_corpus import TokenCorpus


def points(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width, seed=1):
    return torch.linalg.qr(points(width, width, seed))[0]


def test_nothing_is_left_between_a_space_and_its_rotation():
    source = standardised(points(40, 6))
    turn = rotation(6)
    found, residual = procrustes(source, source @ turn)
    assert residual == pytest.approx(0, abs=1e-12)
    assert torch.allclose(found, turn)
    assert torch.allclose(found @ found.T, torch.eye(6, dtype=torch.float64))


def test_the_residual_is_the_smallest_over_rotations_and_grows_with_noise():
    source = standardised(points(60, 4))
    target = source @ rotation(4) + 0.3 * points(60, 4, 5)
    _, residual = procrustes(source, target)
    scale = source.square().sum() + target.square().sum()
    others = [(source @ rotation(4, seed) - target).square().sum() / scale for seed in range(2, 30)]
    assert residual < min(others)
    assert procrustes(source, source @ rotation(4) + 0.6 * points(60, 4, 5))[1] > residual
    with pytest.raises(AlignmentError, match="pairs of one width"):
        procrustes(source, target[:-1])


def test_iterated_matching_finds_a_rotation_without_knowing_the_pairs():
    source = standardised(points(200, 3) * torch.tensor([3.0, 1.5, 0.5], dtype=torch.float64))
    angle = torch.tensor(0.25)
    turn = torch.eye(3, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    target = (source @ turn)[torch.randperm(200, generator=torch.Generator().manual_seed(3))]
    found = iterated_nearest(source, target, torch.eye(3, dtype=torch.float64))
    assert torch.allclose(found, turn, atol=1e-6)
    assert hausdorff(source @ found, target) == pytest.approx(0, abs=1e-6)


def test_hausdorff_distances():
    first = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]])
    assert directed_hausdorff(first, second) == 0
    assert directed_hausdorff(second, first) == 3
    assert hausdorff(first, second) == hausdorff(second, first) == 3
    assert hausdorff(second, second) == 0


def test_a_space_aligns_with_its_rotation_and_less_with_noise():
    source = points(80, 5)
    found = align(source, 2 * source @ rotation(5) + 7)
    assert (found.rank_residual, found.nearest_distance, found.mutual_share) == pytest.approx((0, 0, 1), abs=1e-6)
    assert found.symmetric == pytest.approx(0, abs=1e-6)
    other = align(source, points(80, 5, 9))
    assert other.rank_residual > 0.5
    assert other.mutual_share < 1
    with pytest.raises(AlignmentError, match="nothing to align"):
        align(torch.ones(3, 2), source)


def test_cooccurrences_weigh_pairs_by_their_distance_inside_documents():
    corpus = TokenCorpus.of([[0, 1, 2], [2, 0]], 3)
    expected = torch.tensor([[0, 1, 0.5 + 1], [1, 0, 1], [0.5 + 1, 1, 0]])
    assert torch.equal(cooccurrences(corpus, 2), expected)
    assert torch.equal(cooccurrences(corpus, 1), torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]))


def test_embeddings_reproduce_the_logarithms_of_frequent_pairs_and_group_what_is_used_alike():
    generator = np.random.default_rng(0)
    # Two topics of five tokens each; documents stay with one.
    topics = generator.integers(2, size=400)
    documents = [topic * 5 + generator.integers(5, size=12) for topic in topics]
    counts = cooccurrences(TokenCorpus.of(documents, 10), 5)
    found = glove(counts, 8, torch.Generator().manual_seed(0), steps=200)
    unit = torch.nn.functional.normalize(found, dim=1)
    alike = unit @ unit.T
    inside = torch.block_diag(torch.ones(5, 5), torch.ones(5, 5)).bool()
    off_diagonal = ~torch.eye(10, dtype=torch.bool)
    assert alike[inside & off_diagonal].min() > alike[~inside].max()
    again = glove(counts, 8, torch.Generator().manual_seed(0), steps=200)
    assert torch.equal(found, again)
    assert math.isfinite(float(found.sum()))
