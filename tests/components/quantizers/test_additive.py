"""Joint choice of codes against all combinations and against the greedy path."""

import itertools

import pytest
import torch

from components.quantizers import additive
from components.quantizers.additive import AdditiveQuantizer, jointly_nearest
from components.quantizers.quantized import QuantizerError
from components.quantizers.rvq import ResidualQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def books(count, size, width, seed=0):
    return [torch.randn(size, width, generator=generator(100 * seed + place)) for place in range(count)]


def total(indices, tables):
    return sum(table[indices[:, place]] for place, table in enumerate(tables))


def best_of_all(vectors, tables):
    sums = torch.stack([sum(codes) for codes in itertools.product(*tables)])
    return torch.cdist(vectors.double(), sums.double()).min(1).values.square()


def greedy(vectors, tables):
    residual, indices = vectors, []
    for table in tables:
        indices.append(torch.cdist(residual, table).argmin(1))
        residual = residual - table[indices[-1]]
    return torch.stack(indices, 1)


def errors(vectors, indices, tables):
    return (vectors - total(indices, tables)).double().square().sum(1)


@pytest.mark.parametrize(("count", "size", "width"), [(2, 6, 3), (3, 4, 2)])
def test_a_full_beam_finds_the_best_of_all_combinations(count, size, width):
    tables = books(count, size, width)
    vectors = torch.randn(100, width, generator=generator(9)) * 2
    found = jointly_nearest(vectors, tables, size ** (count - 1))
    torch.testing.assert_close(errors(vectors, found, tables), best_of_all(vectors, tables), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beam_width", [1, 2, 8])
def test_no_vector_is_coded_worse_than_one_book_after_the_other(beam_width):
    for seed in range(10):
        tables = books(4, 8, 4, seed)
        vectors = torch.randn(200, 4, generator=generator(seed)) * 2
        joint = errors(vectors, jointly_nearest(vectors, tables, beam_width), tables)
        one_by_one = errors(vectors, greedy(vectors, tables), tables)
        assert bool((joint <= one_by_one + 1e-5).all())
        assert beam_width == 1 or float(joint.mean()) < 0.9 * float(one_by_one.mean())


def test_the_greedy_path_is_kept_where_the_beam_lost_it():
    tables, vectors = books(4, 8, 4), torch.randn(3000, 4, generator=generator(3)) * 2
    beam = errors(vectors, additive._beam(vectors, tables, 2), tables)
    one_by_one = errors(vectors, greedy(vectors, tables), tables)
    both = errors(vectors, jointly_nearest(vectors, tables, 2), tables)
    assert bool((one_by_one < beam - 1e-4).any())
    torch.testing.assert_close(both, torch.minimum(beam, one_by_one))


def test_chunks_change_no_index(monkeypatch):
    tables, vectors = books(3, 8, 4), torch.randn(5, 7, 4, generator=generator(3))
    whole = jointly_nearest(vectors, tables, 4)
    assert whole.shape == (5, 7, 3)
    monkeypatch.setattr(additive, "_CANDIDATES_PER_CHUNK", 100)
    assert torch.equal(jointly_nearest(vectors, tables, 4), whole)


def test_with_the_same_books_its_error_is_at_most_that_of_residual_quantization():
    torch.manual_seed(0)
    rvq = ResidualQuantizer(16, 6, codebooks=3)
    rvq.start_from(torch.randn(500, 6, generator=generator()), generator())
    joint = AdditiveQuantizer(16, 6, codebooks=3)
    joint.load_state_dict(rvq.state_dict())
    vectors = torch.randn(300, 6, generator=generator(1))
    own = (vectors - joint(vectors).values).square().sum(1)
    theirs = (vectors - rvq(vectors).values).square().sum(1)
    assert bool((own <= theirs + 1e-6).all())
    assert float(own.mean()) < float(theirs.mean())


def test_it_starts_where_residual_quantization_starts():
    torch.manual_seed(0)
    rvq, joint = ResidualQuantizer(16, 6, codebooks=3), AdditiveQuantizer(16, 6, codebooks=3)
    for each in (rvq, joint):
        each.start_from(torch.randn(500, 6, generator=generator()), generator())
    for one, other in zip(rvq.codebooks, joint.codebooks, strict=True):
        assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(("options", "factor"), [({}, 1.25), ({"code_ema_decay": 0.9}, 0.25)])
def test_the_loss_is_the_error_of_the_sum(options, factor):
    torch.manual_seed(0)
    quantizer = AdditiveQuantizer(8, 4, codebooks=2, **options)
    vectors = torch.randn(20, 4, generator=generator())
    result = quantizer(vectors)
    torch.testing.assert_close(result.loss, factor * (vectors - result.values).square().sum(1).mean())


def test_the_gradient_of_the_loss_reaches_every_book():
    torch.manual_seed(0)
    quantizer = AdditiveQuantizer(8, 4, codebooks=2, commitment_weight=0.0)
    vectors = torch.randn(20, 4, generator=generator()).requires_grad_()
    result = quantizer(vectors)
    result.loss.backward()
    for place, book in enumerate(quantizer.codebooks):
        expected = torch.zeros(8, 4)
        expected.index_add_(0, result.indices[:, place], 2 * (result.values - vectors).detach() / 20)
        torch.testing.assert_close(book.weight.grad, expected)
    assert float(vectors.grad.abs().sum()) == 0


def test_averages_follow_what_the_other_books_leave():
    torch.manual_seed(0)
    quantizer = AdditiveQuantizer(8, 4, codebooks=2, code_ema_decay=0.6)
    vectors = torch.randn(50, 4, generator=generator())
    indices = quantizer(vectors).indices
    first, second = (book.weight.clone() for book in quantizer.codebooks)
    quantizer.after_step(0, generator())
    code = int(indices[0, 0])
    left = (vectors - second[indices[:, 1]])[indices[:, 0] == code]
    expected = (0.6 * first[code] + 0.4 * left.sum(0)) / (0.6 + 0.4 * len(left))
    torch.testing.assert_close(quantizer.codebooks[0].weight[code], expected)


def test_averages_lower_the_error_over_steps():
    torch.manual_seed(0)
    quantizer = AdditiveQuantizer(8, 4, codebooks=3, code_ema_decay=0.8)
    vectors = torch.randn(400, 4, generator=generator())
    quantizer.start_from(vectors, generator())
    course = []
    for step in range(15):
        course.append(float((vectors - quantizer(vectors).values).square().sum(1).mean()))
        quantizer.after_step(step, generator())
    assert course[-1] < 0.9 * course[0]


def test_part_of_the_indices_is_no_code():
    with pytest.raises(QuantizerError, match=r"expected \(\.\.\., 3\)"):
        AdditiveQuantizer(8, 4, codebooks=3).decode(torch.zeros(2, 2, dtype=torch.int64))
