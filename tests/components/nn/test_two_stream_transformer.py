"""Two streams: who sees what, by brute force over what can be changed."""

import pytest
import torch

from components.language.any_order import hide, lattice_order, random_order
from components.nn.two_stream_transformer import (
    TwoStreamConfig,
    TwoStreamError,
    TwoStreamTransformer,
    content_mask,
    query_mask,
)
from tests.support.any_order_models import random_model

N, V = 9, 5


def orders(seed: int, batch: int = 6):
    generator = torch.Generator().manual_seed(seed)
    visible = hide(torch.randint(1, N + 1, (batch,), generator=generator), N, generator)
    return random_order(visible, generator), torch.randint(V, (batch, N), generator=generator), generator


def test_masks_follow_ranks_prompt_and_progress_by_the_definition():
    order, _, generator = orders(0)
    progress = order.prompt + (torch.rand(6, generator=generator) * (N - order.prompt + 1)).long()
    content = content_mask(order.ranks, order.prompt)
    oracle = query_mask(order.ranks, order.prompt)
    draft = query_mask(order.ranks, order.prompt, progress)
    for b in range(6):
        rank, m, n = order.ranks[b].tolist(), int(order.prompt[b]), int(progress[b])
        for i in range(N):
            for j in range(N):
                both_given = rank[i] < m and rank[j] < m
                assert content[b, i, j] == (rank[j] <= rank[i] or both_given)
                assert oracle[b, i, j] == ((rank[j] < rank[i] or both_given) and i != j)
                if rank[i] >= n:
                    assert draft[b, i, j] == (rank[j] < n)
                else:
                    assert draft[b, i, j] == oracle[b, i, j]


@pytest.mark.parametrize("seed", range(3))
def test_logits_depend_on_exactly_the_tokens_of_lower_rank(seed):
    order, tokens, _ = orders(seed)
    model = random_model(V, N, seed)
    masks = content_mask(order.ranks, order.prompt), query_mask(order.ranks, order.prompt)
    with torch.no_grad():
        before = model(tokens, *masks)
        for j in range(N):
            changed = tokens.clone()
            changed[:, j] = (changed[:, j] + 1) % V
            difference = (model(changed, *masks) - before).abs().amax(-1)
            sees = order.ranks[:, j, None] < order.ranks
            asked = order.masked  # the density of the prompt is never asked for
            assert (difference[asked & ~sees] == 0).all()  # own token included: no query sees itself
            assert (difference[asked & sees] > 1e-4).all()


@pytest.mark.parametrize("seed", range(3))
def test_drafts_agree_with_the_oracle_at_their_rank_and_read_nothing_behind_it(seed):
    order, tokens, _ = orders(seed)
    model = random_model(V, N, seed)
    content = content_mask(order.ranks, order.prompt)
    with torch.no_grad():
        oracle = model(tokens, content, query_mask(order.ranks, order.prompt)).log_softmax(-1)
        for n in range(N):
            progress = order.prompt.clamp(min=n)
            hidden = tokens.masked_fill(order.ranks >= progress[:, None], V)
            mask = query_mask(order.ranks, order.prompt, progress)
            draft = model(hidden, content, mask).log_softmax(-1)
            assert torch.equal(draft, model(tokens, content, mask).log_softmax(-1))
            at = order.ranks == progress[:, None]
            assert torch.allclose(draft[at], oracle[at], atol=1e-5)
            behind = order.ranks > progress[:, None]
            if behind.any():  # blind to each other: another law than the oracle's
                assert (draft[behind] - oracle[behind]).abs().max() > 1e-3


def test_asking_for_some_positions_gives_their_rows_of_the_whole_answer():
    order, tokens, generator = orders(4)
    model = random_model(V, N)
    queries = torch.rand(6, N, generator=generator).argsort(1)[:, :4]
    progress = order.prompt.clamp(min=3)
    content = content_mask(order.ranks, order.prompt)
    for n in (None, progress):
        whole = model(tokens, content, query_mask(order.ranks, order.prompt, n))
        some = model(tokens, content, query_mask(order.ranks, order.prompt, n, queries), queries)
        assert torch.allclose(some, whole.gather(1, queries[..., None].expand(-1, -1, V)), atol=1e-5)


def test_the_start_alone_answers_where_nothing_is_given():
    model = random_model(V, N)
    order = lattice_order(torch.zeros(2, N, dtype=torch.bool))
    tokens = torch.full((2, N), V)
    logits = model(tokens, content_mask(order.ranks, order.prompt), query_mask(order.ranks, order.prompt, order.prompt))
    assert torch.isfinite(logits).all()
    assert torch.allclose(logits[0], logits[1])


def test_every_parameter_learns():
    model = random_model(V, N)
    order, tokens, _ = orders(1)
    masks = content_mask(order.ranks, order.prompt), query_mask(order.ranks, order.prompt)
    model(tokens, *masks).square().sum().backward()
    assert [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()] == []


def test_impossible_sizes_and_too_long_texts_are_refused():
    with pytest.raises(TwoStreamError, match="width and heads"):
        TwoStreamConfig(5, 8, 12, 1, 4)
    model = TwoStreamTransformer(TwoStreamConfig(5, 4, 8, 1, 2))
    mask = torch.ones(1, 5, 5, dtype=torch.bool)
    with pytest.raises(TwoStreamError, match="5 tokens, but the model has 4"):
        model(torch.zeros(1, 5, dtype=torch.int64), mask, mask)
