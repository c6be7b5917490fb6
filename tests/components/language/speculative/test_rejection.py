"""Accept or replace: what is kept has the target's law."""

import pytest
import torch
from scipy.stats import chisquare

from components.language.speculative.rejection import draw, judge


def laws(seed: int, k: int, size: int):
    generator = torch.Generator().manual_seed(seed)
    target, draft = (torch.randn(k, size, generator=generator).double().mul(1.5).softmax(-1) for _ in range(2))
    return target, draft, generator


def test_draws_follow_weights_and_never_take_a_token_of_weight_0():
    weights = torch.tensor([2.0, 0.0, 1.0, 5.0]).expand(40_000, -1)
    counts = draw(weights, torch.Generator().manual_seed(0)).bincount(minlength=4)
    assert counts[1] == 0
    assert chisquare(counts[[0, 2, 3]], torch.tensor([10_000, 5_000, 25_000])).pvalue > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_the_first_kept_token_has_the_targets_law_and_later_ones_too_where_they_are_reached(seed):
    count = 60_000
    target, draft, generator = laws(seed, 2, 5)
    p, q = target.expand(count, -1, -1), draft.expand(count, -1, -1)
    drafted = draw(q, generator)
    found = judge(p, q, drafted, torch.full((count,), 2), generator)
    first = found.tokens[:, 0].bincount(minlength=5)
    assert chisquare(first, target[0] * count).pvalue > 0.01
    second = found.tokens[found.committed == 2, 1].bincount(minlength=5)
    assert chisquare(second, target[1] * second.sum()).pvalue > 0.01
    # Accepted as often as the two laws overlap.
    overlap = float(torch.minimum(target[0], draft[0]).sum())
    assert float((found.accepted > 0).float().mean()) == pytest.approx(overlap, abs=0.01)


def test_the_target_itself_is_always_accepted():
    target, _, generator = laws(0, 4, 6)
    p = target.expand(5000, -1, -1)
    found = judge(p, p, draw(p, generator), torch.full((5000,), 4), generator)
    assert (found.accepted == 4).all()
    assert (found.committed == 4).all()


def test_drafts_that_are_not_there_count_for_nothing():
    target, _, generator = laws(0, 3, 4)
    p = target.expand(100, -1, -1)
    counts = torch.arange(100) % 3 + 1
    found = judge(p, p, draw(p, generator), counts, generator)
    assert torch.equal(found.accepted, counts)
    assert torch.equal(found.committed, counts)


def test_a_draft_the_target_excludes_is_replaced():
    target, draft = torch.tensor([[[0.0, 0.25, 0.75]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    found = judge(target, draft, torch.tensor([[0]]), torch.tensor([1]), torch.Generator().manual_seed(0))
    assert found.accepted.tolist() == [0]
    assert found.committed.tolist() == [1]
    assert int(found.tokens[0, 0]) in (1, 2)
