"""Codes that learn outside the gradient: closed forms of their averages and the rules of their restarts."""

import numpy as np
import pytest
import torch

from components.quantizers.codebook import Codebook


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codebook(size=8, width=4, *, ema_decay=None, restart_every=0, restart_below=1) -> Codebook:
    torch.manual_seed(0)
    return Codebook(size, width, ema_decay=ema_decay, restart_every=restart_every, restart_below=restart_below)


def test_the_average_of_one_batch_is_its_closed_form():
    book = codebook(ema_decay=0.7)
    start = book.weight.clone()
    vectors = torch.randn(50, 4, generator=generator())
    indices = book.nearest(vectors)
    book.remember(vectors, indices)
    book.after_step(0, generator())
    for code in range(8):
        mine = vectors[indices == code]
        expected = (0.7 * start[code] + 0.3 * mine.sum(0)) / (0.7 + 0.3 * len(mine))
        torch.testing.assert_close(book.weight[code], expected)


def test_averages_follow_their_recursion_over_several_steps():
    book = codebook(ema_decay=0.8)
    sums, counts = book.weight.numpy().astype(np.float64), np.ones(8)
    for step in range(5):
        vectors = torch.randn(40, 4, generator=generator(step))
        codes = sums / counts[:, None]
        points = vectors.numpy().astype(np.float64)
        nearest = ((points[:, None] - codes[None]) ** 2).sum(-1).argmin(1)
        counts = 0.8 * counts + 0.2 * np.bincount(nearest, minlength=8)
        sums = 0.8 * sums + 0.2 * np.stack([points[nearest == code].sum(0) for code in range(8)])
        book.remember(vectors, book.nearest(vectors))
        book.after_step(step, generator())
    np.testing.assert_allclose(book.weight.numpy(), sums / counts[:, None], atol=1e-5)


def test_several_passes_of_one_step_count_as_one_batch():
    vectors = torch.randn(30, 4, generator=generator())
    parts, whole = codebook(ema_decay=0.7), codebook(ema_decay=0.7)
    for part in vectors.split(10):
        parts.remember(part, parts.nearest(part))
    whole.remember(vectors, whole.nearest(vectors))
    for book in (parts, whole):
        book.after_step(0, generator())
    torch.testing.assert_close(parts.weight, whole.weight)


def test_a_code_that_nobody_chooses_stays_where_it_is_forever():
    book = codebook(ema_decay=0.5)
    start = book.weight.clone()
    vectors = start[:1].repeat(10, 1)
    for step in range(200):
        book.remember(vectors, book.nearest(vectors))
        book.after_step(step, generator())
    torch.testing.assert_close(book.weight, start)
    assert float(book.moving_counts.min()) > 0


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_unused_codes_restart_on_different_vectors_of_the_batch_and_used_ones_do_not(ema_decay):
    book = codebook(size=32, ema_decay=ema_decay, restart_every=3)
    batch = torch.randn(40, 4, generator=generator()) * 0.2 + 5
    for step in range(3):
        before = book.weight.detach().clone()
        indices = book.nearest(batch)
        book.remember(batch, indices)
        book.after_step(step, generator(step))
        after = book.weight.detach()
        unused = torch.ones(32, dtype=torch.bool)
        unused[indices] = False
        if step < 2:
            torch.testing.assert_close(after[unused], before[unused])
    assert unused.sum() > 20
    on_a_vector = torch.cdist(after[unused].double(), batch.double()).min(1)
    assert float(on_a_vector.values.max()) < 1e-6
    assert len(set(on_a_vector.indices.tolist())) == int(unused.sum())
    if ema_decay is None:
        assert torch.equal(after[~unused], before[~unused])
    assert float(book.uses.sum()) == 0


def test_a_restarted_average_starts_anew():
    book = codebook(size=4, ema_decay=0.9, restart_every=1)
    batch = torch.full((6, 4), 3.0)
    book.remember(batch, torch.zeros(6, dtype=torch.int64))
    book.after_step(0, generator())
    assert torch.equal(book.weight[1:], batch[:3])
    assert torch.equal(book.moving_sums[1:], batch[:3])
    assert book.moving_counts[1:].tolist() == [1.0, 1.0, 1.0]


def test_codes_used_less_often_than_the_bar_restart_too():
    book = codebook(size=4, restart_every=2, restart_below=3)
    batch = torch.randn(6, 4, generator=generator()) + 50
    before = book.weight.detach().clone()
    for step in range(2):
        # In two steps code 0 is used 8 times, code 1 twice, code 2 four times.
        book.remember(batch, torch.tensor([0, 0, 0, 0, 1, 2]))
        book.remember(batch[:1], torch.tensor([2]))
        book.after_step(step, generator())
    kept = (book.weight.detach() == before).all(1)
    assert kept.tolist() == [True, False, True, False]


def test_more_dead_codes_than_vectors_share_them_out_evenly():
    book = codebook(size=10, restart_every=1)
    batch = torch.randn(4, 4, generator=generator()) + 9
    book.remember(batch, torch.zeros(4, dtype=torch.int64))
    book.after_step(0, generator())
    nearest = torch.cdist(book.weight[1:].detach(), batch).argmin(1)
    assert sorted(torch.bincount(nearest).tolist()) == [2, 2, 2, 3]


def test_a_start_puts_codes_onto_means_and_forgets_uses():
    book = codebook(size=2, width=1, ema_decay=0.9, restart_every=5)
    book.uses.fill_(7)
    book.start_from(torch.tensor([[0.0], [1.0], [10.0], [12.0]]), generator())
    assert sorted(book.weight.flatten().tolist()) == [0.5, 11.0]
    assert torch.equal(book.moving_sums, book.weight)
    assert float(book.uses.sum()) == 0


def test_all_that_outlives_a_step_is_a_parameter_or_buffer():
    book = codebook(ema_decay=0.9, restart_every=2)
    book.remember(torch.randn(5, 4), torch.zeros(5, dtype=torch.int64))
    book.after_step(0, generator())
    names = {"weight", "moving_sums", "moving_counts", "uses"}
    assert set(book.state_dict()) == names
    assert not [value for value in vars(book).values() if isinstance(value, torch.Tensor)]
