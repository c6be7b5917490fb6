"""Bias and variance of estimates of the gradient through the draw of a code, where the truth can be enumerated.

A vector z draws one of K codes, k ~ p(k | z) proportional to exp(-||z - e_k||^2 / T), and a small network is asked
for a target from it:

    F(z) = E_k f(e_k) = sum_k p(k | z) f(e_k),      f(x) = ||tanh(W x) - y||^2 / 2

The sum over K codes and its gradient are exact. An estimator draws noise and returns something whose mean should be
dF/dz:

    reinforce        f(e_k) d log p(k | z) / dz
    ste              df/dx at e_k: the draw is passed as if it were the identity
    rotation_trick   df/dx at e_k, turned and scaled as z is onto e_k
    gumbel           d f(sum_k y_k e_k) / dz,     y = softmax((log p + g) / tau), g Gumbel noise: no code is drawn
    gumbel_st        df/dx at e_k, k = argmax y, passed through dy / dz

Letters: `S` draws, `P` problems, `K` codes, `D` width of a vector.

Sources: Williams 1992 (REINFORCE); Bengio, Leonard, Courville 2013 (straight-through); Jang, Gu, Poole 2017 and
Maddison, Mnih, Teh 2017 (Gumbel-softmax); Fifty et al. 2024 (rotation trick).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError
from components.quantizers.quantized import straight_through
from components.quantizers.rotation_trick import rotate_onto
from components.training.determinism import derive_seed

Estimator = Literal["ste", "gumbel", "gumbel_st", "rotation_trick", "reinforce"]
TEMPERED = ("gumbel", "gumbel_st")
"""Estimators that have a temperature."""

_NUMBERS_PER_CHUNK = 1 << 19


class GradientBiasError(TesseraError):
    """An estimator was asked for in a way that has no meaning."""


class Problems(NamedTuple):
    """P problems, each with its own codes, vector, network and target, float32.

    Attributes:
        vectors: z (P, D).
        codes: e (P, K, D).
        weights: W (P, D, D).
        targets: y (P, D).
        temperature: T.
    """

    vectors: Tensor
    codes: Tensor
    weights: Tensor
    targets: Tensor
    temperature: float

    def loss(self, values: Tensor) -> Tensor:
        """Return f (..., P) of values x (..., P, D)."""
        outputs = torch.tanh(torch.einsum("pij,...pj->...pi", self.weights, values))
        return (outputs - self.targets).square().sum(-1) / 2

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        """Return log p(k | z), (..., P, K), of vectors z (..., P, D)."""
        distances = (vectors.unsqueeze(-2) - self.codes).square().sum(-1)
        return F.log_softmax(-distances / self.temperature, -1)

    def true_gradient(self) -> Tensor:
        """Return dF/dz (P, D): the sum over all K codes, differentiated."""
        vectors = self.vectors.clone().requires_grad_()
        losses = self.loss(self.codes.transpose(0, 1)).transpose(0, 1)
        with torch.enable_grad():
            expected = (self.log_probabilities(vectors).exp() * losses).sum()
        return torch.autograd.grad(expected, vectors)[0]


class Measured(NamedTuple):
    """What was found out about an estimator, float64 (P,) each.

    Attributes:
        bias: Mean error of one half of the draws along the direction of the other half's mean error. Its expectation is
            at most the length of the bias, near it where that is beyond the noise, and 0 without bias.
        bias_error: Standard error of that.
        variance: E ||g - E g||^2.
        cosine: Between the mean of all estimates and the truth.
        draw_cosine: Between one estimate and the truth, mean over draws; an estimate of 0 counts 0.
    """

    bias: Tensor
    bias_error: Tensor
    variance: Tensor
    cosine: Tensor
    draw_cosine: Tensor


def draw_problems(problems: int, codes: int, width: int, temperature: float, generator: torch.Generator) -> Problems:
    """Draw P problems: vectors, codes and targets from normal distributions, weights of variance 1 / D."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Problems(
        vectors=normal(problems, width),
        codes=normal(problems, codes, width),
        weights=normal(problems, width, width) * width**-0.5,
        targets=normal(problems, width),
        temperature=temperature,
    )


def estimates(problems: Problems, estimator: Estimator, noise: Tensor, temperature: float = 1.0) -> Tensor:
    """Return one estimate of the gradient for every draw, (S, P, D).

    Args:
        problems: P problems.
        estimator: Name of the estimator.
        noise: Gumbel noise (S, P, K): by the Gumbel-max trick argmax(log p + noise) is a draw of p.
        temperature: tau of the Gumbel estimators.

    Raises:
        GradientBiasError: There is no such estimator, or the temperature is not positive.
    """
    if estimator not in get_args(Estimator):
        raise GradientBiasError(f"estimator {estimator!r}; expected one of {', '.join(get_args(Estimator))}.")
    if temperature <= 0:
        raise GradientBiasError(f"temperature {temperature}; expected above 0.")
    vectors = problems.vectors.expand(len(noise), -1, -1).clone().requires_grad_()
    with torch.enable_grad():
        log_probabilities = problems.log_probabilities(vectors)
        objective = _surrogate(problems, estimator, vectors, log_probabilities, noise, temperature)
    return torch.autograd.grad(objective.sum(), vectors)[0]


def _surrogate(
    problems: Problems, estimator: Estimator, vectors: Tensor, log_probabilities: Tensor, noise: Tensor, tau: float
) -> Tensor:
    """Return (S, P) whose gradient with respect to the vectors is the estimate."""
    noisy = log_probabilities + noise
    if estimator in TEMPERED:
        relaxed = torch.einsum("spk,pkd->spd", F.softmax(noisy / tau, -1), problems.codes)
        if estimator == "gumbel":
            return problems.loss(relaxed)
    drawn = noisy.detach().argmax(-1)
    codes = problems.codes[torch.arange(drawn.shape[1]), drawn]
    if estimator == "gumbel_st":
        return problems.loss(straight_through(codes, relaxed))
    if estimator == "reinforce":
        return problems.loss(codes) * log_probabilities.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
    return problems.loss(straight_through(codes, vectors) if estimator == "ste" else rotate_onto(codes, vectors))


def measure(problems: Problems, estimator: Estimator, draws: int, seed: int, temperature: float = 1.0) -> Measured:
    """Draw estimates in two halves and compare them with the truth.

    Equal seeds give every estimator and temperature the same noise.

    Args:
        problems: P problems.
        estimator: Name of the estimator.
        draws: S, over both halves.
        seed: Of the noise.
        temperature: tau of the Gumbel estimators.
    """
    truth = problems.true_gradient().double()
    unit_truth = F.normalize(truth, dim=-1)
    half = draws // 2
    first = torch.zeros_like(truth)
    squares, cosines = torch.zeros_like(truth[:, 0]), torch.zeros_like(truth[:, 0])
    for part in _chunks(problems, estimator, half, derive_seed(seed, 0), temperature):
        first += part.sum(0)
        squares += part.square().sum((0, 2))
        cosines += (F.normalize(part, dim=-1) * unit_truth).sum((0, 2))
    direction = F.normalize(first / half - truth, dim=-1)
    second = torch.zeros_like(truth)
    along, along_squares = torch.zeros_like(squares), torch.zeros_like(squares)
    for part in _chunks(problems, estimator, half, derive_seed(seed, 1), temperature):
        second += part.sum(0)
        squares += part.square().sum((0, 2))
        cosines += (F.normalize(part, dim=-1) * unit_truth).sum((0, 2))
        errors = ((part - truth) * direction).sum(-1)
        along += errors.sum(0)
        along_squares += errors.square().sum(0)
    bias = along / half
    mean = (first + second) / (2 * half)
    return Measured(
        bias=bias,
        bias_error=((along_squares / half - bias.square()).clamp(min=0) / (half - 1)).sqrt(),
        variance=squares / (2 * half) - mean.square().sum(-1),
        cosine=(F.normalize(mean, dim=-1) * unit_truth).sum(-1),
        draw_cosine=cosines / (2 * half),
    )


def _chunks(problems: Problems, estimator: Estimator, draws: int, seed: int, temperature: float) -> Iterator[Tensor]:
    """Yield estimates (S', P, D), float64, of `draws` draws in all."""
    generator = torch.Generator().manual_seed(seed)
    count, codes, width = problems.codes.shape
    rows = max(1, _NUMBERS_PER_CHUNK // (count * codes * width))
    for start in range(0, draws, rows):
        # -log of an exponential number is a Gumbel number.
        noise = -torch.empty(min(rows, draws - start), count, codes).exponential_(generator=generator).log()
        yield estimates(problems, estimator, noise, temperature).double()
