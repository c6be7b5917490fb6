"""Training losses of discrete diffusion: weighted cross entropy on noisy tokens, and the exact KL of a step.

With the router of the posterior on both sides, the KL of step t is a cross entropy on the noisy tokens,

    L_t = l2(t) sum_n [x_t,n != x_0,n] (-ln f(x_t, t)_n[x_0,n])

and another router of the same support changes the weight only.

Letters: B sequences, N tokens, V tokens of the vocabulary (those that may be predicted), T steps of the grid.

Source: Zheng et al. 2023, "A Reparameterized Discrete Diffusion Model for Text Generation", sections 4.2 and 4.3; the
KL of a plugged-in prediction: Hoogeboom et al. 2021, "Argmax Flows and Multinomial Diffusion", section 4.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from components.diffusion.noise import Noise, corrupt
from components.diffusion.reparameterized import clean_probability, draw_earlier, posterior
from components.diffusion.schedules import DiffusionError, Grid

Weighting = Literal["variational", "linear", "constant"]


def step_weights(weighting: Weighting, grid: Grid) -> Tensor:
    """Return the weight of each step, float64 (T + 1,), 0 at step 0.

    "variational" is l2 = (alpha_{t-1} - alpha_t) / (1 - alpha_t) (1 / t for masks on the linear schedule), "linear" is
    1 - (t - 1) / T, "constant" is 1.

    Raises:
        DiffusionError: There is no such weighting.
    """
    steps = torch.arange(1, grid.steps + 1, dtype=torch.float64)
    if weighting == "variational":
        weights = clean_probability(grid.alphas[:-1], grid.alphas[1:])
    elif weighting == "linear":
        weights = 1 - (steps - 1) / grid.steps
    elif weighting == "constant":
        weights = torch.ones_like(steps)
    else:
        raise DiffusionError(f"weighting is {weighting!r}; expected 'variational', 'linear' or 'constant'.")
    return torch.cat([weights.new_zeros(1), weights])


class Noised(NamedTuple):
    """Sequences at some step.

    Attributes:
        tokens: x_t, int64 (B, N).
        steps: t, int64 (B,).
    """

    tokens: Tensor
    steps: Tensor


def draw_noised(
    x_0: Tensor, grid: Grid, noise: Noise, generator: torch.Generator | None, *, noisable: Tensor | None = None
) -> Noised:
    """Draw t ~ U{1..T} for each sequence and x_t ~ q(x_t | x_0).

    Args:
        x_0: int64 (B, N).
        grid: Schedule in T steps.
        noise: q_n.
        generator: Source of the draws, on the device of `x_0`.
        noisable: Tokens that may be noised, bool (B, N); all where None.
    """
    steps = torch.randint(1, grid.steps + 1, x_0.shape[:1], generator=generator, device=x_0.device)
    return Noised(corrupt(x_0, grid.alpha(steps)[:, None], noise, generator, noisable=noisable), steps)


def draw_coupled(
    x_0: Tensor, grid: Grid, noise: Noise, generator: torch.Generator | None, *, noisable: Tensor | None = None
) -> tuple[Noised, Noised]:
    """Draw two times of each sequence, later first, the earlier one conditioned on the later one.

    t1 >= t2 uniform on {1..T}, x_t1 ~ q(. | x_0), x_t2 ~ q(. | x_t1, x_0); where t1 = t2 both are drawn from x_0. Each
    by itself is distributed as q(x_t | x_0). Arguments as in `draw_noised`.

    Source: Zheng et al. 2023, appendix on conditioned training.
    """
    pair = torch.randint(1, grid.steps + 1, (2, len(x_0)), generator=generator, device=x_0.device)
    later, earlier = pair.amax(0), pair.amin(0)
    alpha_s, alpha_t = grid.alpha(earlier)[:, None], grid.alpha(later)[:, None]
    first = corrupt(x_0, alpha_t, noise, generator, noisable=noisable)
    second = draw_earlier(first, x_0, alpha_s, alpha_t, noise, generator, noisable=noisable)
    independent = corrupt(x_0, alpha_t, noise, generator, noisable=noisable)
    second = torch.where((later == earlier)[:, None], independent, second)
    return Noised(first, later), Noised(second, earlier)


def noisy_cross_entropy(
    logits: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    weights: Tensor,
    *,
    counted: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean over counted tokens of weight * [x_t != x_0] * cross entropy; clean tokens count as 0.

    Args:
        logits: (B, N, V).
        x_0: Clean tokens, int64 (B, N).
        x_t: Noisy tokens, int64 (B, N); a token that noise gave back by chance is clean.
        weights: Of each sequence's step, (B,).
        counted: Tokens of the mean, bool (B, N): no padding; all where None.
        label_smoothing: Share of the label that is spread evenly over the vocabulary.

    Returns:
        Scalar, in nats per token.
    """
    counted = torch.ones_like(x_0, dtype=torch.bool) if counted is None else counted
    noisy = (x_t != x_0) & counted
    targets = x_0.masked_fill(~noisy, -100)
    losses = F.cross_entropy(
        logits.float().transpose(1, 2), targets, reduction="none", ignore_index=-100, label_smoothing=label_smoothing
    )
    return (losses * weights[:, None].to(losses.dtype)).sum() / counted.sum().clamp(min=1)


def posterior_divergence(
    logits: Tensor, x_0: Tensor, x_t: Tensor, alpha_s: Tensor, alpha_t: Tensor, noise: Noise
) -> Tensor:
    """Return KL(q(x_s | x_t, x_0) || q(x_s | x_t, f)) of each token, in nats, (B, N) of the logits' precision.

    The prediction f = softmax(logits) stands in the place of x_0. At alpha_s = 1 it is -ln q(x_0 | x_t, f), the last
    term of the bound.

    Args:
        logits: (B, N, V') over the first V' of the noise's V tokens; the others are never predicted.
        x_0: int64 (B, N).
        x_t: int64 (B, N).
        alpha_s: Share of clean tokens at the earlier time, (B, 1).
        alpha_t: The same at the later time, (B, 1).
        noise: q_n.
    """
    predicted = F.pad(logits.double().softmax(-1), (0, noise.vocabulary_size - logits.shape[-1]))
    truth = posterior(x_t, x_0, alpha_s, alpha_t, noise)
    model = posterior(F.one_hot(x_t, noise.vocabulary_size).double(), predicted, alpha_s, alpha_t, noise)
    # 0 ln 0 = 0; where the truth is positive so is the model, but for predictions that round to zero.
    terms = torch.special.xlogy(truth, truth) - torch.where(
        truth > 0, truth * model.clamp(min=1e-30).log(), truth.new_zeros(())
    )
    return terms.sum(-1).to(logits.dtype)
