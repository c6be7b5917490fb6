"""Acceptance of sampled drafts, so that what is kept has the target's law whatever the drafts' law was.

    draft y_s ~ q_s   for s = 0, 1, ...:   accept with probability min(1, p_s(y_s) / q_s(y_s))
                                           else draw from normalise(max(p_s - q_s, 0)) and stop

It does not matter which network the distributions come from, nor whether drafts stand in a row or anywhere in a text.

Letters: B texts, k drafts of each, V tokens of the vocabulary.

Source: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", algorithm 1 and appendix
A.1; Chen et al. 2023, "Accelerating Large Language Model Decoding with Speculative Sampling", theorem 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Judged:
    """What became of drafts.

    Attributes:
        tokens: The drafts, with the first refused one replaced, int64 (B, k); what stands behind it means nothing.
        accepted: How many drafts were accepted, int64 (B,).
        committed: How many tokens count: the accepted ones and the replacement, if there is one, int64 (B,).
    """

    tokens: Tensor
    accepted: Tensor
    committed: Tensor


def draw(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a token from each distribution, (..., V) to int64 (...).

    The first of V exponential clocks whose rates are the probabilities: exact, and a token of probability 0 never wins.

    Args:
        probabilities: Weights of at least one token above 0; they need not add up to 1.
        generator: Source of the draws, on the device of the probabilities.
    """
    clocks = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / clocks.clamp(min=torch.finfo(clocks.dtype).tiny)).argmax(-1)


def judge(
    target: Tensor, draft: Tensor, drafted: Tensor, counts: Tensor, generator: torch.Generator | None = None
) -> Judged:
    """Accept or replace drafts.

    Args:
        target: p_s, each given the drafts before, float32 or float64 (B, k, V).
        draft: q_s, what each draft was drawn from, (B, k, V).
        drafted: y_s, int64 (B, k).
        counts: How many of the k drafts there are in each text, at least 1, int64 (B,).
        generator: Source of the draws.
    """
    p, q = (each.gather(-1, drafted[..., None])[..., 0] for each in (target, draft))
    uniform = torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype)
    right = (uniform * q < p) & (torch.arange(p.shape[1], device=p.device) < counts[:, None])
    accepted = right.long().cumprod(1).sum(1)
    # Where nothing is refused, the row drawn from is the last one and its draw is not used.
    refused = accepted.clamp(max=p.shape[1] - 1)
    row = refused[:, None, None].expand(-1, 1, target.shape[-1])
    after, before = target.gather(1, row)[:, 0], draft.gather(1, row)[:, 0]
    rest = (after - before).clamp(min=0)
    # Rounding alone can refuse a draft where p = q; then nothing is left of the difference.
    rest = torch.where(rest.sum(-1, keepdim=True) > 0, rest, after)
    replaced = drafted.scatter(1, refused[:, None], draw(rest, generator)[:, None])
    tokens = torch.where((accepted < counts)[:, None], replaced, drafted)
    return Judged(tokens, accepted, torch.minimum(accepted + 1, counts))
