"""Attribution of a siamese similarity to pairs of tokens, by integrated Jacobians of the shared encoder.

With e an encoder from token representations to one vector, f(a, b) = e(a)^T e(b), references r_a and r_b, and straight
paths x(t) = r + t (x - r), the fundamental theorem applied to both sides gives

    f(a, b) - f(r_a, b) - f(a, r_b) + f(r_a, r_b) = sum_{i, j} A_ij,
    A_ij = (a - r_a)_i [J_a^T J_b]_ij (b - r_b)_j,        J_x = int_0^1 de/dx (x(t)) dt.

Only sums over the features of a token are wanted. With c_i = int J_a(t)[:, i] (a - r_a)_i dt, summed over the features
of token i, the matrix of tokens is A = C_a C_b^T: a derivative along one direction for each token and point takes the
place of one backward pass for each entry of e, and no Jacobian is ever held.

    quadrature -- contributions (B, S, E) --+
                                            +-- pair_matrix (S_a, S_b) -- divided by |e(a) - e(r_a)| |e(b) - e(r_b)|
    quadrature -- contributions (B, S, E) --+

The integral is a mean over N points, at their right ends (t = 1/N, ..., 1; error O(1/N)) or in the middle (O(1/N^2)).

Letters: B sequences of a batch, S tokens, D features of a token, E width of the embedding, N points.

Source: Moeller, Nikolaev and Pado 2023, "An Attribution Method for Siamese Encoders", sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from components.errors import TesseraError

Rule = Literal["right", "midpoint"]
Embed = Callable[[Tensor, Tensor | None], Tensor]
"""Token representations (B, S, D) and their mask (B, S), None where nothing is padded, to embeddings (B, E)."""

_DIRECTED_TOKENS = 8192  # tokens, counted once for each direction, that are differentiated at once


class AttributionError(TesseraError):
    """Inputs that have no attribution of this kind, or that would make it inexact."""


class Quadrature(NamedTuple):
    """Equally weighted points of the line integral.

    Attributes:
        points: N.
        rule: At the right ends of N equal intervals, or in their middle.
    """

    points: int
    rule: Rule = "right"

    @property
    def nodes(self) -> tuple[Fraction, ...]:
        """The places t on the path, exact, so that rules that share a place can share its derivatives."""
        if self.points < 1:
            raise AttributionError(f"quadrature with {self.points} points; expected at least 1.")
        if self.rule == "right":
            return tuple(Fraction(k, self.points) for k in range(1, self.points + 1))
        return tuple(Fraction(2 * k - 1, 2 * self.points) for k in range(1, self.points + 1))


def contributions(
    embed: Embed, x: Tensor, reference: Tensor, rules: Sequence[Quadrature], mask: Tensor | None = None
) -> list[Tensor]:
    """Return c_i of every token under several rules; a place that rules share is differentiated once.

        c_i = 1/N sum_t  d/ds e(x(t) + s d_i) |_{s=0},      d_i = x - reference at token i, zero elsewhere

    The sum of c over tokens is e(x) - e(reference), to the error of the rule. Derivatives are computed in the precision
    of x and summed in double precision.

    Args:
        embed: The encoder, in evaluation mode; differentiable forward (attention as plain arithmetic).
        x: Representations, (B, S, D), float32 or float64.
        reference: Reference of each sequence, (B, S, D), of the same length and mask.
        rules: What to sum over.
        mask: True at tokens, (B, S); None where nothing is padded. Padding contributes nothing.

    Returns:
        (B, S, E) float64 for each rule.

    Raises:
        AttributionError: Shapes differ, or the precision is too low.
    """
    _check(x, reference, mask)
    places = sorted({place for rule in rules for place in rule.nodes})
    members = [set(rule.nodes) for rule in rules]
    totals: list[Tensor | int] = [0] * len(rules)
    for chunk in _chunks(places, x):
        derivatives = _directional(embed, x, reference, chunk, mask).double()
        for number, wanted in enumerate(members):
            rows = [row for row, place in enumerate(chunk) if place in wanted]
            if rows:
                totals[number] = totals[number] + derivatives[rows].sum(0)
    return [total / rule.points for total, rule in zip(totals, rules, strict=True)]


def gradient_x_input(embed: Embed, x: Tensor, reference: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return c of the Jacobian at the input alone, (B, S, E) float64: the integral replaced by its value at t = 1."""
    return contributions(embed, x, reference, [Quadrature(1, "right")], mask)[0]


def last_layer_contributions(final: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return c_i = h_i / S of the last layer's token vectors (B, S, E): the naive reading of mean pooling.

    Its pair matrix sums to e(a)^T e(b) exactly, and says which token's vector it comes from, not which token's input:
    what the network has mixed stays mixed. Padding gets zeros.
    """
    if mask is None:
        return final.double() / final.shape[1]
    kept = mask.double()
    return final.double() * (kept / kept.sum(1, keepdim=True))[..., None]


def one_sided(contribution: Tensor, other: Tensor) -> Tensor:
    """Return integrated gradients of f(., b) with b fixed, c_i^T e(b): one number for each token of a.

    They sum to f(a, b) - f(r_a, b). As a matrix of pairs they are the same in every column (`spread_evenly`): which
    token of b answers to a token of a cannot be read from them.

    Args:
        contribution: c of the tokens of a, (S, E).
        other: e(b), (E,).

    Returns:
        (S,) float64.

    Source: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", equation 1.
    """
    return contribution.double() @ other.double()


def spread_evenly(values: Tensor, columns: int) -> Tensor:
    """Return the matrix (S, columns) whose rows share each value of (S,) equally."""
    return (values.double() / columns)[:, None].expand(-1, columns).clone()


def uniform(similarity: Tensor | float, rows: int, columns: int) -> Tensor:
    """Return the matrix in which every pair of tokens carries the same share of a similarity."""
    return torch.full((rows, columns), float(similarity) / (rows * columns), dtype=torch.float64)


def pair_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Return A_ij = c_i^T c_j of two sequences' contributions (S_a, E) and (S_b, E): (S_a, S_b) float64."""
    return first.double() @ second.double().T


def corrected_similarity(a: Tensor, b: Tensor, reference_a: Tensor, reference_b: Tensor) -> Tensor:
    """Return f(a, b) - f(r_a, b) - f(a, r_b) + f(r_a, r_b) of embeddings (..., E): what A sums to, (...) float64."""
    a, b, reference_a, reference_b = (vector.double() for vector in (a, b, reference_a, reference_b))
    four = (a * b, -reference_a * b, -a * reference_b, reference_a * reference_b)
    return torch.stack([term.sum(-1) for term in four]).sum(0)


def cosine_scale(a: Tensor, b: Tensor, reference_a: Tensor, reference_b: Tensor) -> Tensor:
    """Return |e(a) - e(r_a)| |e(b) - e(r_b)| of embeddings (..., E), by which A is divided to explain a cosine.

    The norms are those at the actual inputs and count as constants.
    """
    a, b, reference_a, reference_b = (vector.double() for vector in (a, b, reference_a, reference_b))
    return (a - reference_a).norm(dim=-1) * (b - reference_b).norm(dim=-1)


def integrated_jacobian(
    embed: Embed, x: Tensor, reference: Tensor, rule: Quadrature, mask: Tensor | None = None
) -> Tensor:
    """Return J of one sequence entry by entry, (E, S, D): the explicit route, E backward passes for each point.

    Args:
        embed: The encoder.
        x: Representations of one sequence, (S, D).
        reference: Its reference, (S, D).
        rule: What to sum over.
        mask: True at tokens, (S,).
    """
    _check(x[None], reference[None], None if mask is None else mask[None])
    mask = None if mask is None else mask[None]
    derivative = torch.func.jacrev(lambda point: embed(point[None], mask)[0])
    with torch.autocast(x.device.type, enabled=False):
        nodes = [derivative(reference + float(place) * (x - reference)).detach() for place in rule.nodes]
    return torch.stack(nodes).double().mean(0)


def feature_pair_attributions(
    jacobian_a: Tensor, difference_a: Tensor, jacobian_b: Tensor, difference_b: Tensor
) -> Tensor:
    """Return A of every pair of features, (S_a, D, S_b, D) float64; only for small inputs, it is never needed.

    Args:
        jacobian_a: Integrated Jacobian of a, (E, S_a, D).
        difference_a: a - r_a, (S_a, D).
        jacobian_b: Integrated Jacobian of b, (E, S_b, D).
        difference_b: b - r_b, (S_b, D).
    """
    first = jacobian_a.double() * difference_a.double()
    second = jacobian_b.double() * difference_b.double()
    return torch.einsum("eid,ejf->idjf", first, second)


def _directional(embed: Embed, x: Tensor, reference: Tensor, places: Sequence[Fraction], mask: Tensor | None) -> Tensor:
    """Derivatives of e along each token's difference at some places of the path, (N, B, S, E)."""
    batch, length, width = x.shape
    count = len(places)
    at = torch.tensor([float(place) for place in places], dtype=x.dtype, device=x.device)[:, None, None, None]
    difference = x - reference
    points = (reference + at * difference).reshape(count * batch, length, width)
    tiled = None if mask is None else mask.repeat(count, 1)
    tokens = torch.eye(length, dtype=x.dtype, device=x.device)[:, None, :, None]

    def along(token: Tensor) -> Tensor:
        direction = (difference * token).repeat(count, 1, 1)
        return torch.func.jvp(lambda point: embed(point, tiled), (points,), (direction,))[1]

    # The points are the same in all directions, so only the derivatives are computed S times. No parameter's gradient
    # is recorded, whether or not it asks for one, and nothing is rounded to half precision.
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        found = torch.func.vmap(along)(tokens).detach()
    return found.view(length, count, batch, -1).permute(1, 2, 0, 3)


def _chunks(places: list[Fraction], x: Tensor) -> Iterator[list[Fraction]]:
    batch, length, _ = x.shape
    size = max(1, _DIRECTED_TOKENS // (batch * length * length))
    for first in range(0, len(places), size):
        yield places[first : first + size]


def _check(x: Tensor, reference: Tensor, mask: Tensor | None) -> None:
    if x.dim() != 3 or x.shape != reference.shape:
        raise AttributionError(
            f"x has shape {tuple(x.shape)}, its reference {tuple(reference.shape)}; expected the same (B, S, D): a "
            "reference has the length of its input, or position embeddings and attention would differ."
        )
    if mask is not None and mask.shape != x.shape[:2]:
        raise AttributionError(f"mask has shape {tuple(mask.shape)}; expected {tuple(x.shape[:2])}.")
    if x.dtype not in (torch.float32, torch.float64) or reference.dtype != x.dtype:
        raise AttributionError(
            f"x is {x.dtype}, its reference {reference.dtype}; expected both float32 or both float64: lower precision "
            "is larger than the error that more points remove."
        )
