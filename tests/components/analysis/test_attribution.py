"""Attributions of pairs against the explicit Jacobian, closed forms and conserved sums."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from components.analysis.attribution import (
    AttributionError,
    Quadrature,
    contributions,
    corrected_similarity,
    cosine_scale,
    feature_pair_attributions,
    gradient_x_input,
    integrated_jacobian,
    last_layer_contributions,
    one_sided,
    pair_matrix,
    spread_evenly,
    uniform,
)
from components.nn.bert import BertConfig, BertLayer

WIDTH = 12


class Transformer(nn.Module):
    """Two layers and a mean over tokens: (B, S, 12) to (B, 12)."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(vocabulary_size=2, width=WIDTH, layers=2, heads=3, mlp=24)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(2))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layers:
            hidden, _ = layer(hidden, mask, plain=True)
        if mask is None:
            return hidden.mean(1)
        weights = mask.to(hidden.dtype)
        return (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


class Smooth(nn.Module):
    """Tokens mixed and squashed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(WIDTH, 16), nn.Linear(16, 7)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        mixed = hidden + 0.5 * hidden.mean(1, keepdim=True)
        return self.outer(torch.tanh(self.inner(mixed))).mean(1).tanh()


@pytest.fixture
def transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer().eval()


@pytest.fixture
def smooth() -> Smooth:
    torch.manual_seed(1)
    return Smooth().double().eval()


def texts(*lengths: int, seed: int = 0, dtype=torch.float32) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(2, 1, length, WIDTH, generator=generator, dtype=dtype)) for length in lengths]


def error(embed, a, b, rule: Quadrature) -> float:
    total = pair_matrix(*(contributions(embed, *side, [rule])[0][0] for side in (a, b))).sum()
    return float((total - left_side(embed, a, b)).abs())


@torch.no_grad()
def left_side(embed, a, b) -> Tensor:
    return corrected_similarity(*(embed(x, None)[0] for x in (a[0], b[0], a[1], b[1])))


def test_attributions_sum_to_the_four_terms_without_any_fine_tuning(transformer):
    transformer.double()
    a, b = texts(5, 4, seed=1, dtype=torch.float64)
    errors = [error(transformer, a, b, Quadrature(points, "midpoint")) for points in (8, 32, 128)]
    assert errors[2] < 1e-4 < errors[0]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert abs(float(left_side(transformer, a, b))) > 0.1


def test_the_left_side_is_written_out_term_by_term():
    e, o, r, s = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert float(corrected_similarity(e, o, r, s)) == pytest.approx(float(e @ o - r @ o - e @ s + r @ s))
    assert float(corrected_similarity(e, o, r, s)) == pytest.approx(float((e - r) @ (o - s)))
    assert float(cosine_scale(e, o, r, s)) == pytest.approx(float((e - r).norm() * (o - s).norm()))


@pytest.mark.parametrize("rule", ["right", "midpoint"])
def test_a_linear_encoder_is_explained_exactly_by_one_point(rule):
    weight = torch.randn(WIDTH, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def linear(hidden: Tensor, mask: Tensor | None) -> Tensor:
        return (hidden @ weight).mean(1) + 0.3

    a, b = texts(4, 6, dtype=torch.float64)
    assert error(linear, a, b, Quadrature(1, rule)) < 1e-12
    matrix = pair_matrix(*(contributions(linear, *side, [Quadrature(1, rule)])[0][0] for side in (a, b)))
    by_hand = (((a[0] - a[1]) @ weight)[0] / 4) @ (((b[0] - b[1]) @ weight)[0] / 6).T
    torch.testing.assert_close(matrix, by_hand)


@pytest.mark.parametrize(("rule", "factor"), [("midpoint", 4.0), ("right", 2.0)])
def test_twice_the_points_divide_the_error_by_two_or_four(smooth, rule, factor):
    a, b = texts(3, 5, seed=2, dtype=torch.float64)
    errors = [error(smooth, a, b, Quadrature(points, rule)) for points in (16, 32, 64)]
    assert errors[0] / errors[1] == pytest.approx(factor, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("rule", [Quadrature(4), Quadrature(3, "midpoint")])
def test_directions_equal_the_explicit_jacobian_summed_over_features(transformer, rule):
    (a, ra), (b, rb) = texts(4, 3, seed=4)
    cheap = pair_matrix(*(contributions(transformer, *side, [rule])[0][0] for side in ((a, ra), (b, rb))))
    jacobians = [integrated_jacobian(transformer, x[0], r[0], rule) for x, r in ((a, ra), (b, rb))]
    features = feature_pair_attributions(jacobians[0], (a - ra)[0], jacobians[1], (b - rb)[0])
    assert features.shape == (4, WIDTH, 3, WIDTH)
    torch.testing.assert_close(cheap, features.sum((1, 3)), atol=1e-5, rtol=0)
    assert cheap.abs().max() > 1e-2


def test_the_matrix_of_exchanged_texts_is_the_transposed_one(transformer):
    a, b = texts(4, 6, seed=6)
    rule = [Quadrature(3)]
    ca, cb = (contributions(transformer, *side, rule)[0][0] for side in (a, b))
    torch.testing.assert_close(pair_matrix(ca, cb), pair_matrix(cb, ca).T, atol=1e-12, rtol=0)


def test_a_token_that_equals_its_reference_gets_exactly_nothing(transformer):
    (x, reference), b = texts(5, 4, seed=7)
    x = x.clone()
    x[0, 2] = reference[0, 2]
    rule = [Quadrature(4, "midpoint")]
    matrix = pair_matrix(
        contributions(transformer, x, reference, rule)[0][0], contributions(transformer, *b, rule)[0][0]
    )
    assert (matrix[2] == 0).all()
    assert (matrix[[0, 1, 3, 4]].abs().sum(1) > 0).all()


def test_padding_and_the_other_texts_of_a_batch_change_nothing(transformer):
    lengths, rule = (3, 6, 4), [Quadrature(4), Quadrature(2, "midpoint")]
    alone = texts(*lengths, seed=8)
    x, reference = torch.randn(2, 3, 6, WIDTH, generator=torch.Generator().manual_seed(9))
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    for row, (length, (own, ours)) in enumerate(zip(lengths, alone, strict=True)):
        x[row, :length], reference[row, :length] = own[0], ours[0]
    for batched, number in zip(contributions(transformer, x, reference, rule, mask), range(2), strict=True):
        for row, length in enumerate(lengths):
            single = contributions(transformer, *alone[row], rule)[number][0]
            torch.testing.assert_close(batched[row, :length], single, atol=2e-6, rtol=1e-4)
            assert (batched[row, length:] == 0).all()


def test_rules_computed_together_equal_rules_computed_apart_and_share_places(smooth):
    (side,) = texts(4, dtype=torch.float64)
    rules = [Quadrature(points, rule) for rule in ("right", "midpoint") for points in (1, 2, 5, 10)]
    seen = []

    def counted(hidden: Tensor, mask: Tensor | None) -> Tensor:
        seen.append(len(hidden))
        return smooth(hidden, mask)

    together = contributions(counted, *side, rules)
    assert sum(seen) == len({place for rule in rules for place in rule.nodes}) < sum(rule.points for rule in rules)
    for rule, found in zip(rules, together, strict=True):
        torch.testing.assert_close(found, contributions(smooth, *side, [rule])[0])


@given(st.integers(1, 60))
def test_places_are_the_right_ends_or_the_middles_of_equal_intervals(points):
    right, middle = (Quadrature(points, rule).nodes for rule in ("right", "midpoint"))
    assert right[-1] == 1
    assert right[0] == Fraction(1, points)
    assert all(end - centre == Fraction(1, 2 * points) for end, centre in zip(right, middle, strict=True))
    assert set(right) <= set(Quadrature(2 * points).nodes)


def test_no_gradient_is_left_behind_and_autocast_is_ignored(transformer):
    (side,) = texts(4)
    assert all(parameter.requires_grad for parameter in transformer.parameters())
    found = contributions(transformer, *side, [Quadrature(3)])[0]
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in transformer.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found, contributions(transformer, *side, [Quadrature(3)])[0])


def test_gradient_times_input_is_the_jacobian_at_the_input(transformer):
    ((x, reference),) = texts(4)
    jacobian = torch.func.jacrev(lambda point: transformer(point[None], None)[0])(x[0])
    by_hand = torch.einsum("eid,id->ie", jacobian, (x - reference)[0]).double()
    torch.testing.assert_close(gradient_x_input(transformer, x, reference)[0], by_hand, atol=1e-5, rtol=1e-4)


def test_final_token_vectors_add_up_to_the_plain_dot_product():
    a, b = torch.randn(2, 2, 5, 7, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    pooled = [(part * mask[..., None]).sum(1) / mask.sum(1, keepdim=True) for part in (a, b)]
    parts = [last_layer_contributions(part, mask) for part in (a, b)]
    for row in range(2):
        total = pair_matrix(parts[0][row], parts[1][row]).sum()
        assert float(total) == pytest.approx(float(pooled[0][row].double() @ pooled[1][row].double()), rel=1e-5)
    torch.testing.assert_close(last_layer_contributions(a).sum(1).float(), a.mean(1))


def test_one_sided_gradients_explain_one_text_and_know_no_pairs(smooth):
    (x, reference), (other, _) = texts(4, 5, seed=3, dtype=torch.float64)
    contribution = contributions(smooth, x, reference, [Quadrature(400, "midpoint")])[0][0]
    with torch.no_grad():
        fixed, start, end = smooth(other, None)[0], smooth(reference, None)[0], smooth(x, None)[0]
    values = one_sided(contribution, fixed)
    assert float(values.sum()) == pytest.approx(float((end - start) @ fixed), abs=1e-6)
    matrix = spread_evenly(values, 5)
    assert torch.linalg.matrix_rank(matrix - matrix.mean(1, keepdim=True), tol=1e-12) == 0
    torch.testing.assert_close(matrix.sum(1), values)


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(-3, 3))
def test_a_uniform_matrix_has_the_total_in_equal_parts(rows, columns, total):
    matrix = uniform(total, rows, columns)
    assert matrix.shape == (rows, columns)
    assert len(matrix.unique()) == 1
    assert float(matrix.sum()) == pytest.approx(total)


def test_inputs_that_would_leave_the_path_or_its_precision_are_refused(transformer):
    x, rule = torch.randn(1, 4, WIDTH), [Quadrature(2)]
    with pytest.raises(AttributionError, match="the same"):
        contributions(transformer, x, x[:, :3], rule)
    with pytest.raises(AttributionError, match="expected both float32 or both float64"):
        contributions(transformer, x.bfloat16(), x.bfloat16(), rule)
    with pytest.raises(AttributionError, match="mask has shape"):
        contributions(transformer, x, x, rule, torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(AttributionError, match="0 points"):
        contributions(transformer, x, x, [Quadrature(0)])
