"""Mutual nearest neighbours against a search over all pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from components.analysis import nearest_pairs
from components.analysis.nearest_pairs import NearestPairsError, mutual_nearest


@pytest.mark.parametrize("rows", [7, 2048])
def test_pairs_are_those_of_a_search_over_all_pairs(rows, monkeypatch):
    monkeypatch.setattr(nearest_pairs, "_ROWS", rows)
    vectors = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    unit = F.normalize(vectors, dim=-1)
    nearest = [max((j for j in range(40) if j != i), key=lambda j, i=i: float(unit[i] @ unit[j])) for i in range(40)]
    expected = [(i, j) for i in range(40) for j in range(i + 1, 40) if nearest[i] == j and nearest[j] == i]
    assert mutual_nearest(vectors) == expected
    assert expected
    assert mutual_nearest(vectors, lambda i, j: (i, j) == expected[0]) == expected[1:]


def test_lengths_of_vectors_do_not_matter():
    vectors = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    assert mutual_nearest(vectors) == mutual_nearest(vectors * torch.arange(1, 21)[:, None])


def test_one_text_has_no_neighbour():
    with pytest.raises(NearestPairsError, match="at least two"):
        mutual_nearest(torch.ones(1, 3))
