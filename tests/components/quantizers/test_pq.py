"""Product quantization: parts that know nothing of one another."""

import pytest
import torch

from components.quantizers import multi_codebook, pq
from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.pq import ProductQuantizer
from components.quantizers.rvq import ResidualQuantizer
from components.quantizers.vq import VectorQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BUILDS = [pq.build, multi_codebook.build]


@pytest.mark.parametrize("build", BUILDS)
def test_it_equals_its_parts_each_on_its_own(build):
    torch.manual_seed(0)
    quantizer = build(8, 6, codebooks=3)
    vectors = torch.randn(20, 6, generator=generator())
    result = quantizer(vectors)
    alone = [part(piece) for part, piece in zip(quantizer.parts, vectors.split(2, -1), strict=True)]
    assert torch.equal(result.values, torch.cat([each.values for each in alone], 1))
    assert torch.equal(result.indices, torch.stack([each.indices for each in alone], 1))
    torch.testing.assert_close(result.loss, sum(each.loss for each in alone) / 3)


def test_the_error_is_the_sum_of_the_parts_errors_and_the_best_of_all_combinations():
    torch.manual_seed(0)
    quantizer = pq.build(3, 6, codebooks=3)
    vectors = torch.randn(20, 6, generator=generator())
    result = quantizer(vectors)
    errors = (vectors - result.values).square()
    parts = [(piece - part(piece).values).square().sum(1) for part, piece in
             zip(quantizer.parts, vectors.split(2, -1), strict=True)]  # fmt: skip
    torch.testing.assert_close(errors.sum(1), sum(parts))
    every = quantizer.decode(torch.cartesian_prod(*[torch.arange(3)] * 3))
    torch.testing.assert_close(errors.sum(1), torch.cdist(vectors, every).square().min(1).values)


@pytest.mark.parametrize("build", BUILDS)
def test_changing_one_part_changes_one_index(build):
    torch.manual_seed(0)
    quantizer = build(8, 6, codebooks=3)
    vectors = torch.randn(20, 6, generator=generator())
    changed = vectors.clone()
    changed[:, 2:4] = torch.randn(20, 2, generator=generator(1))
    before, after = quantizer(vectors).indices, quantizer(changed).indices
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.equal(before[:, 1], after[:, 1])


@pytest.mark.parametrize("build", BUILDS)
def test_permuting_parts_with_their_codebooks_permutes_indices_and_values(build):
    torch.manual_seed(0)
    quantizer = build(8, 6, codebooks=3)
    order = [2, 0, 1]
    permuted = ProductQuantizer([quantizer.parts[place] for place in order])
    vectors = torch.randn(20, 6, generator=generator())
    shuffled = torch.cat([vectors.split(2, -1)[place] for place in order], 1)
    one, other = quantizer(vectors), permuted(shuffled)
    assert torch.equal(other.indices, one.indices[:, order])
    assert torch.equal(other.values, torch.cat([one.values.split(2, -1)[place] for place in order], 1))


@pytest.mark.parametrize(("build", "single"), [(multi_codebook.build, VectorQuantizer), (pq.build, EuclideanQuantizer)])
def test_with_one_codebook_it_is_the_plain_quantizer(build, single):
    torch.manual_seed(0)
    quantizer = build(8, 4, codebooks=1)
    torch.manual_seed(0)
    plain = single(8, 4)
    vectors = torch.randn(20, 4, generator=generator())
    one, other = quantizer(vectors), plain(vectors)
    assert torch.equal(one.indices.squeeze(-1), other.indices)
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.loss, other.loss)


def test_unit_norm_codes_ignore_the_length_of_a_part_and_euclidean_ones_do_not():
    vectors = torch.randn(200, 6, generator=generator())
    scaled = vectors * torch.tensor([3.0, 3.0, 0.2, 0.2, 1.0, 1.0])
    torch.manual_seed(0)
    unit, plain = multi_codebook.build(8, 6, codebooks=3), pq.build(8, 6, codebooks=3)
    assert torch.equal(unit(vectors).indices, unit(scaled).indices)
    assert not torch.equal(plain(vectors).indices, plain(scaled).indices)


def test_nearest_by_cosine_is_nearest_by_distance_of_normalised_vectors():
    torch.manual_seed(0)
    quantizer = multi_codebook.build(8, 12, codebooks=4)
    vectors = torch.randn(30, 12, generator=generator())
    for part, piece, found in zip(quantizer.parts, vectors.split(3, -1), quantizer(vectors).indices.T, strict=True):
        cosine = torch.cosine_similarity(piece[:, None], part.codebook[None], dim=-1)
        assert torch.equal(found, cosine.argmax(1))


def test_parts_may_have_several_indices_each():
    torch.manual_seed(0)
    quantizer = ProductQuantizer([ResidualQuantizer(4, 2, codebooks=2), EuclideanQuantizer(8, 3)])
    assert quantizer.codebook_sizes == (4, 4, 8)
    result = quantizer(torch.randn(10, 5, generator=generator()))
    assert result.indices.shape == (10, 3)
    assert torch.equal(quantizer.decode(result.indices), result.values)
