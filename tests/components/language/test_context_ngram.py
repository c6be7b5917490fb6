"""Drafts from the text itself, against counting by hand."""

from collections import Counter

import torch

from components.language.any_order import Order, hide, lattice_order, random_order
from components.language.context_ngram import ContextBigram

V = 4


def by_hand(tokens, decided, position, text, known):
    """Counts behind the left neighbour, or of single tokens, or nothing."""
    pairs = Counter()
    if position > 0 and known[position - 1]:
        for place in range(len(tokens) - 1):
            if decided[place] and decided[place + 1] and tokens[place] == text[position - 1]:
                pairs[tokens[place + 1]] += 1
    counts = pairs or Counter(token for token, is_decided in zip(tokens, decided, strict=True) if is_decided)
    total = sum(counts.values())
    return [counts[token] / total if total else 1 / V for token in range(V)]


def test_laws_are_counts_of_decided_neighbours_with_single_tokens_behind_them():
    generator = torch.Generator().manual_seed(0)
    length, k = 12, 4
    visible = hide(torch.arange(60) % 7 + 6, length, generator)
    original = torch.randint(V, (60, length), generator=generator)
    for order in (lattice_order(visible), random_order(visible, generator)):
        progress = order.prompt + torch.arange(60) % 3
        progress = progress.clamp(max=length - k)
        tokens = original.masked_fill(order.ranks >= progress[:, None], V)
        queries = order.positions.gather(1, progress[:, None] + torch.arange(k))
        drafts, laws = ContextBigram(V).draft(tokens, order, progress, queries, generator)
        for row in range(60):
            decided = (order.ranks[row] < progress[row]).tolist()
            text, known = tokens[row].tolist(), list(decided)
            for s, position in enumerate(queries[row].tolist()):
                expected = by_hand(tokens[row].tolist(), decided, position, text, known)
                assert torch.allclose(laws[row, s], torch.tensor(expected))
                assert laws[row, s, drafts[row, s]] > 0
                text[position], known[position] = int(drafts[row, s]), True


def test_nothing_known_drafts_anything():
    order = Order(torch.arange(3)[None], torch.zeros(1, dtype=torch.int64))
    tokens = torch.full((1, 3), V)
    _, laws = ContextBigram(V).draft(tokens, order, order.prompt, torch.tensor([[0, 1, 2]]), torch.Generator())
    assert torch.allclose(laws, torch.full((1, 3, V), 1 / V))
