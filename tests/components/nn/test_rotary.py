from __future__ import annotations

import torch
from torch import Tensor

from components.nn.rotary import rotary_angles, rotate


def test_rotary_scores_depend_on_distance_only_and_keep_norms():
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def turned(vector: Tensor, position: int) -> Tensor:
        return rotate(vector, rotary_angles(torch.tensor([position]), 16))

    def score(i: int, j: int) -> Tensor:
        return (turned(query, i) * turned(key, j)).sum()

    torch.testing.assert_close(score(3, 1), score(103, 101), atol=1e-4, rtol=0)
    assert abs(score(3, 1) - score(3, 2)) > 1e-3
    torch.testing.assert_close(turned(query, 57).norm(), query.norm())
    torch.testing.assert_close(turned(query, 0), query)


def test_rotary_pairs_turn_as_complex_numbers():
    heads = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    frequencies = torch.tensor([10_000 ** (-2 * i / 8) for i in range(4)], dtype=torch.float64)
    turns = torch.polar(torch.ones(5, 4, dtype=torch.float64), torch.arange(5).double()[:, None] * frequencies)
    expected = torch.view_as_real(torch.view_as_complex(heads.unflatten(-1, (4, 2))) * turns).flatten(-2)
    torch.testing.assert_close(rotate(heads, rotary_angles(torch.arange(5), 8)), expected, atol=1e-6, rtol=0)


def test_rows_may_have_their_own_positions():
    heads = torch.randn(2, 3, 4, 8)
    positions = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]])
    together = rotate(heads, rotary_angles(positions[:, None], 8))
    for row in range(2):
        alone = rotate(heads[row : row + 1], rotary_angles(positions[row], 8))
        torch.testing.assert_close(together[row : row + 1], alone)
