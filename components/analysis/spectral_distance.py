"""How far merging tokens moves the spectrum of their graph.

    W_ij = 1 - c_ij (the paper's), or max(c_ij, 0)            weights, c_ij = cos(x_i, x_j)
    L = I - D^-1/2 W D^-1/2                                   normalised Laplacian, D the degrees
    W_c[a, b] = sum_{i in a, j in b} W_ij                     coarse graph of groups, self-loops kept
    W_l[i, j] = W_c[P(i), P(j)] / (|P(i)| |P(j)|)             lifted back to all tokens, P(i) the group of i
    SD = sum_i |lambda_i(L) - lambda_i(L_l)|                  sorted spectra

The lifted Laplacian is never built: its eigenvalues are those of the coarse one, and 1 with multiplicity N - n.

Letters: `B` graphs, `N` tokens, `n` groups, `C` width of a token.

Sources: Tran et al. 2024 (PiToMe), section 3.3 and its appendix; Loukas 2019, "Graph reduction with spectral and cut
guarantees"; Jin, Loukas and JaJa 2020, "Graph coarsening with preserved spectral properties" (the lift, the distance).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError

Weight = Literal["distance", "similarity"]
WEIGHTS: tuple[Weight, ...] = ("distance", "similarity")


class SpectrumError(TesseraError):
    """A graph of tokens was described in a way that has no meaning."""


def weights(tokens: Tensor, kind: Weight) -> Tensor:
    """Return W, float64 (B, N, N), of tokens (B, N, C).

    Raises:
        SpectrumError: There are no weights of this name.
    """
    unit = F.normalize(tokens.double(), dim=-1)
    cosine = unit @ unit.transpose(1, 2)
    if kind == "distance":
        return (1 - cosine).clamp_min(0)
    if kind == "similarity":
        return cosine.clamp_min(0)
    raise SpectrumError(f"weight is {kind!r}; expected 'distance' or 'similarity'.")


def laplacian(graph: Tensor) -> Tensor:
    """Return I - D^-1/2 W D^-1/2, (B, N, N), of weights (B, N, N); an unconnected token has a row of the identity."""
    degrees = graph.sum(-1)
    scale = torch.where(degrees > 0, degrees, torch.inf).rsqrt()
    identity = torch.eye(graph.shape[-1], dtype=graph.dtype, device=graph.device)
    return identity - scale[..., None] * graph * scale[..., None, :]


def spectrum(graph: Tensor) -> Tensor:
    """Return the eigenvalues of the normalised Laplacian of weights (B, N, N), ascending, (B, N)."""
    return torch.linalg.eigvalsh(laplacian(graph))


def coarsened(graph: Tensor, groups: Tensor) -> Tensor:
    """Return W_c, (B, n, n), of weights (B, N, N) and each token's group, int64 (B, N) in 0 .. n - 1.

    Raises:
        SpectrumError: A token has no group, as dropped ones have none.
    """
    if bool((groups < 0).any()):
        raise SpectrumError("a token has no group: it was dropped, not merged. Only merges have a coarse graph.")
    members = F.one_hot(groups).to(graph.dtype)
    return members.transpose(1, 2) @ graph @ members


def lifted_spectrum(graph: Tensor, groups: Tensor) -> Tensor:
    """Return the eigenvalues of the lifted normalised Laplacian, ascending, (B, N); every group has a member."""
    coarse = spectrum(coarsened(graph, groups))
    missing = graph.shape[-1] - coarse.shape[-1]
    ones = coarse.new_ones(len(coarse), missing)
    return torch.cat([coarse, ones], 1).sort(1).values


def spectral_distance(graph: Tensor, groups: Tensor, own: Tensor | None = None) -> Tensor:
    """Return SD, (B,), of a partition of the tokens of a graph.

    Args:
        graph: Weights (B, N, N).
        groups: Group of each token, int64 (B, N).
        own: `spectrum(graph)`, where it is known already.
    """
    own = spectrum(graph) if own is None else own
    return (own - lifted_spectrum(graph, groups)).abs().sum(1)
