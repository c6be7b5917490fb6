"""Bounds of the likelihood of masked diffusion, by estimators whose variance is reported.

With a network that is given no time, in continuous time and for any schedule,

    -ln p(x)  <=  E_u rate(u) sum_n [n masked] nats_n  =  E_j (n / j) sum_n [n masked] nats_n,    j ~ U{1..n}

where on the left every token is masked with probability 1 - alpha(u), and on the right exactly j of the n tokens that
are predicted, at random. The second form is the first with the time integrated out. On the linear schedule the first
has a variance that grows without bound the more often it is drawn (its weight is 1 / u); the second has none of that.

With blocks, the bound is the sum of the bounds of the blocks, each given those before: a time or count per block.

Letters: B sequences, N tokens, S tokens of a block.

Sources: Sahoo et al. 2024, "Simple and Effective Masked Diffusion Language Models", section 3 and appendix C
(low-discrepancy times); Ou et al. 2024, "Your Absorbing Discrete Diffusion Secretly Models the Conditional
Distributions of Clean Data", section 3.3 (counts); Kingma et al. 2021, "Variational Diffusion Models", appendix I.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from components.diffusion.noise import AbsorbingNoise, blocks_of, choose
from components.diffusion.schedules import DiffusionError, Schedule

Nats = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(noisy (B, N), masked (B, N), times (B, N)) -> -ln p(x_0) of each token (B, N)`; only masked ones are read."""


@dataclass(frozen=True)
class Bound:
    """An estimate of an upper bound of -ln p.

    Attributes:
        nats: Of each sequence, float64 (B,).
        variance: Variance of each of these estimates over the random draws, (B,).
        tokens: Tokens of each sequence that are predicted, int64 (B,).
        draws: Network evaluations behind each estimate.
    """

    nats: Tensor
    variance: Tensor
    tokens: Tensor
    draws: int

    def per_token(self) -> tuple[float, float]:
        """Return nats per token of all sequences together, and the variance that the random draws leave in it."""
        total = float(self.tokens.sum())
        return float(self.nats.sum()) / total, float(self.variance.sum()) / total**2


@dataclass(frozen=True)
class BoundEstimator:
    """How a likelihood bound is estimated.

    Attributes:
        over: Draw the time, or the number of masked tokens, which integrates the time out.
        draw: Independent, in pairs u and 1 - u, or at one offset in every one of `draws` equal parts of [0, 1).
        draws: Draws of one repeat, averaged.
        repeats: Independent repeats, from whose spread the variance is taken.
        block: S; None for one block over everything.
    """

    over: Literal["time", "count"] = "count"
    draw: Literal["uniform", "antithetic", "stratified"] = "stratified"
    draws: int = 8
    repeats: int = 2
    block: int | None = None

    def __post_init__(self) -> None:
        if self.over not in ("time", "count"):
            raise DiffusionError(f"over is {self.over!r}; expected 'time' or 'count'.")
        if self.draw not in ("uniform", "antithetic", "stratified"):
            raise DiffusionError(f"draw is {self.draw!r}; expected 'uniform', 'antithetic' or 'stratified'.")
        if self.draws < 1 or self.repeats < 2:
            raise DiffusionError(
                f"{self.draws} draws in {self.repeats} repeats; expected at least 1 and 2 (for a variance)."
            )
        if self.draw == "antithetic" and self.draws % 2:
            raise DiffusionError(f"antithetic draws come in pairs; {self.draws} is odd.")

    def places(self, shape: tuple[int, ...], generator: torch.Generator | None, device=None) -> Tensor:
        """Return the places u in [0, 1) of one repeat, float64 (draws, *shape), each uniform by itself."""

        def uniform(*size: int) -> Tensor:
            return torch.rand(size, generator=generator, device=device, dtype=torch.float64)

        if self.draw == "uniform":
            return uniform(self.draws, *shape)
        if self.draw == "antithetic":
            half = uniform(self.draws // 2, *shape)
            # 1 - 0 would be outside; 0 is mirrored onto itself.
            return torch.cat([half, torch.where(half > 0, 1 - half, half)])
        parts = torch.arange(self.draws, dtype=torch.float64, device=device).view(-1, *([1] * len(shape)))
        return (uniform(1, *shape) + parts / self.draws) % 1

    @torch.no_grad()
    def estimate(
        self,
        nats: Nats,
        tokens: Tensor,
        noise: AbsorbingNoise,
        schedule: Schedule,
        generator: torch.Generator | None = None,
        *,
        predicted: Tensor | None = None,
    ) -> Bound:
        """Estimate the bound of sequences.

        Args:
            nats: What the network says, see `Nats`.
            tokens: Clean sequences, int64 (B, N).
            noise: The mask.
            schedule: alpha(u); in the form over counts it only says what time a count belongs to.
            generator: Source of the draws, on the device of `tokens`.
            predicted: Tokens whose likelihood it is, bool (B, N). The others (padding, a prompt) are never masked and
                count for nothing; padding must also be hidden from the network, which is the caller's.

        Raises:
            DiffusionError: Blocks do not divide N.
        """
        predicted = torch.ones_like(tokens, dtype=torch.bool) if predicted is None else predicted
        batch, length = tokens.shape
        block = self.block or length
        shape = (batch, blocks_of(length, block), block)
        allowed = predicted.reshape(shape)
        room = allowed.sum(-1, keepdim=True)
        values = torch.zeros(self.repeats, batch, dtype=torch.float64, device=tokens.device)
        for repeat in range(self.repeats):
            for place in self.places((batch, shape[1], 1), generator, tokens.device):
                if self.over == "count":
                    count = (place * room).long().clamp(max=(room - 1).clamp(min=0)) + 1
                    masked = choose(count, allowed, generator)
                    weight = room / count
                    time = schedule.time_of(1 - count / room.clamp(min=1))
                else:
                    # The rate has a pole at 0, which a draw in float64 meets never in practice.
                    time = place.clamp(min=1e-12)
                    masked = torch.rand(shape, generator=generator, device=tokens.device) < 1 - schedule.alpha(time)
                    masked, weight = masked & allowed, schedule.rate(time)
                flat = masked.reshape(batch, length)
                noisy = tokens.masked_fill(flat, noise.mask_token_id)
                cost = nats(noisy, flat, time.expand(shape).reshape(batch, length).float())
                cost = torch.where(flat, cost.double(), 0.0).reshape(shape).sum(-1)
                values[repeat] += (cost * weight[..., 0]).sum(-1)
        values /= self.draws
        return Bound(values.mean(0), values.var(0) / self.repeats, predicted.sum(1), self.draws * self.repeats)
