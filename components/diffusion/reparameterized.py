"""One step back as two draws: a router says which tokens become clean, then they are set.

With b_t = 1 where x_t = x_0, alpha_s of the earlier and alpha_t of the later time, beta = alpha_t / alpha_s:

    b_t = 1:  v ~ Bern(l1);  x_s = x_t  if v else u,    u  ~ q_n
              l1 = 1 - (1 - beta) (1 - alpha_s) q_n(x_t) / (alpha_t + (1 - alpha_t) q_n(x_t))
    b_t = 0:  v ~ Bern(l2);  x_s = x_0  if v else u',   u' ~ beta delta(x_t) + (1 - beta) q_n
              l2 = (alpha_s - alpha_t) / (1 - alpha_t)

The mixture of the draws is exactly the posterior q(x_s | x_t, x_0), for a single step as for a jump; a model puts its
prediction in the place of x_0, and any rule in the place of the coins.

Letters: V tokens of the vocabulary; "..." any shape of positions.

Source: Zheng et al. 2023, "A Reparameterized Discrete Diffusion Model for Text Generation", section 4.1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from components.diffusion.noise import Noise
from components.diffusion.schedules import DiffusionError


class Routers(NamedTuple):
    """Probabilities of the two coins of a jump from t back to s.

    Attributes:
        stay: l1, that a clean token stays as it is.
        clean: l2, that a noisy token becomes clean.
    """

    stay: Tensor
    clean: Tensor


def routers(x_t: Tensor, alpha_s: Tensor, alpha_t: Tensor, noise: Noise) -> Routers:
    """Return the exact coins of a jump, each float64 of the shape of `x_t`.

    Args:
        x_t: Tokens, int64 (...).
        alpha_s: Share of clean tokens at the earlier time, broadcastable to (...).
        alpha_t: The same at the later time, smaller.
        noise: q_n.
    """
    alpha_s, alpha_t = (torch.as_tensor(value, dtype=torch.float64, device=x_t.device) for value in (alpha_s, alpha_t))
    probability = noise.probability(x_t)
    reached = alpha_t + (1 - alpha_t) * probability
    # Where neither x_0 nor noise can give x_t, the coin is never thrown.
    stay = 1 - (1 - alpha_t / alpha_s) * (1 - alpha_s) * probability / reached.where(reached > 0, 1.0)
    return Routers(stay, clean_probability(alpha_s, alpha_t).expand(x_t.shape))


def clean_probability(alpha_s: Tensor, alpha_t: Tensor) -> Tensor:
    """Return l2 = (alpha_s - alpha_t) / (1 - alpha_t), which is 1 / t for masks with the linear schedule."""
    return (alpha_s - alpha_t) / (1 - alpha_t)


def posterior(x_t: Tensor, x_0: Tensor, alpha_s: Tensor, alpha_t: Tensor, noise: Noise) -> Tensor:
    """Return q(x_s | x_t, x_0) by Bayes' rule, q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0), float64 (..., V).

    Args:
        x_t: int64 (...), or probabilities of tokens (..., V).
        x_0: The same; probabilities stand for a prediction that is plugged in (multinomial diffusion's model).
        alpha_s: Share of clean tokens at the earlier time, broadcastable to (...).
        alpha_t: The same at the later time.
        noise: q_n.

    Raises:
        DiffusionError: x_0 and the noise cannot lead to x_t.
    """
    later, start = (_one_hot(tokens, noise.vocabulary_size) for tokens in (x_t, x_0))
    alpha_s, alpha_t = (torch.as_tensor(value, dtype=torch.float64)[..., None] for value in (alpha_s, alpha_t))
    kept = alpha_t / alpha_s
    q_n = noise.distribution.to(later.device)
    # q(x_t | x_s) as a function of x_s: kept [x_s = x_t] + (1 - kept) q_n(x_t).
    joint = kept * later + (1 - kept) * (later * q_n).sum(-1, keepdim=True)
    joint = joint * (alpha_s * start + (1 - alpha_s) * q_n)
    total = joint.sum(-1, keepdim=True)
    if joint.device.type == "cpu" and bool((total <= 0).any()):
        raise DiffusionError("x_t cannot come from x_0 by this noise; check that both belong to the same sequence.")
    return joint / total


def routed_posterior(x_t: Tensor, x_0: Tensor, alpha_s: Tensor, alpha_t: Tensor, noise: Noise) -> Tensor:
    """Return the distribution of x_s after the two draws, float64 (..., V): equal to `posterior`."""
    stay, clean = (coin[..., None] for coin in routers(x_t, alpha_s, alpha_t, noise))
    later, start = (_one_hot(tokens, noise.vocabulary_size) for tokens in (x_t, x_0))
    alpha_s, alpha_t = (torch.as_tensor(value, dtype=torch.float64)[..., None] for value in (alpha_s, alpha_t))
    kept = alpha_t / alpha_s
    q_n = noise.distribution.to(later.device)
    from_clean = stay * later + (1 - stay) * q_n
    from_noisy = clean * start + (1 - clean) * (kept * later + (1 - kept) * q_n)
    return torch.where((x_t == x_0)[..., None], from_clean, from_noisy)


def _one_hot(tokens: Tensor, size: int) -> Tensor:
    return tokens.double() if tokens.is_floating_point() else F.one_hot(tokens, size).double()


def set_tokens(
    x_t: Tensor,
    x_0: Tensor,
    noisy: Tensor,
    stays: Tensor | bool,
    cleans: Tensor,
    kept: Tensor | float,
    noise: Noise,
    uniform: Tensor,
) -> Tensor:
    """Set x_s once it is decided what becomes of every token; the second half of the two draws.

    Args:
        x_t: Tokens now, int64 (...).
        x_0: Clean tokens or a prediction of them, int64 (...).
        noisy: Tokens that count as noisy, bool (...).
        stays: Clean tokens that stay (v1), bool (...) or one for all; the others become noise.
        cleans: Noisy tokens that become clean (v2), bool (...).
        kept: beta of the jump: a noisy token that stays noisy is kept with it, else drawn again.
        noise: q_n.
        uniform: Two draws from [0, 1) for each token, (2, ...).
    """
    fresh = noise.at(uniform[0])
    still_noisy = torch.where(uniform[1] < kept, x_t, fresh)
    from_clean = x_t if stays is True else torch.where(stays, x_t, fresh)
    return torch.where(noisy, torch.where(cleans, x_0, still_noisy), from_clean)


def draw_earlier(
    x_t: Tensor,
    x_0: Tensor,
    alpha_s: Tensor,
    alpha_t: Tensor,
    noise: Noise,
    generator: torch.Generator | None = None,
    *,
    noisable: Tensor | None = None,
) -> Tensor:
    """Draw x_s ~ q(x_s | x_t, x_0) by the two draws.

    Args:
        x_t: int64 (...).
        x_0: int64 (...).
        alpha_s: Share of clean tokens at the earlier time, broadcastable to (...).
        alpha_t: The same at the later time.
        noise: q_n.
        generator: Source of the draws, on the device of the tokens.
        noisable: Tokens that may be noised, bool (...); all where None.
    """
    coins = routers(x_t, alpha_s, alpha_t, noise)
    uniform = torch.rand((4, *x_t.shape), generator=generator, device=x_t.device)
    noisy = x_t != x_0
    drawn = set_tokens(
        x_t, x_0, noisy, uniform[0] < coins.stay, uniform[1] < coins.clean, alpha_t / alpha_s, noise, uniform[2:]
    )
    return drawn if noisable is None else torch.where(noisable, drawn, x_0)
