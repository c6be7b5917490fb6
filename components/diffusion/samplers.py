"""Samplers of discrete diffusion: who decides, in every step, which tokens become clean.

    ancestral   the coins of the posterior (`components.diffusion.reparameterized`): blind to how sure it is
    routed      the K least sure tokens are noise, all others are clean; a clean token may become noise again
    committing  masks only: the surest (or random) masked tokens are written and stay, or may be masked again

The network is asked only for positions whose prediction decides anything, and only in sequences that are not finished.
What was asked is counted for every sequence. One step waits for the device once, to find these positions.

Letters: B sequences, R of them still unfinished, N tokens, P positions asked for, V tokens that may be predicted.

Sources: Zheng et al. 2023, "A Reparameterized Discrete Diffusion Model for Text Generation", section 4.3 (routed);
Austin et al. 2021, section 3 (ancestral); Chang et al. 2022, "MaskGIT", section 3.2 (committing); Ghazvininejad et al.
2019, "Mask-Predict", section 4 (masking again); Chen et al. 2023, "Analog Bits", section 2.4 (asymmetric intervals).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from components.diffusion.noise import AbsorbingNoise, Noise
from components.diffusion.reparameterized import clean_probability, routers, set_tokens
from components.diffusion.schedules import Decay, DiffusionError, Grid, remaining_after, remaining_share


class Denoiser(Protocol):
    """A network, bound to what its sequences are conditioned on."""

    def __call__(self, tokens: Tensor, times: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        """Return logits (P, V) of some positions; special tokens are not among the V, or have minus infinity.

        Args:
            tokens: Sequences that are asked about, int64 (R, N).
            times: u of each, float32 (R,).
            rows: Which sequences of the batch they are, int64 (R,).
            wanted: Positions asked for, places in the flattened R x N, ascending, int64 (P,).
        """


@dataclass
class Sampled:
    """Sequences, and what they cost.

    Attributes:
        tokens: int64 (B, N).
        scores: ln f of each token when it was written, float32 (B, N); 0 where nothing was.
        calls: Network evaluations that each sequence took part in, int64 (B,).
        positions: Positions of each sequence whose prediction was computed, summed over calls, int64 (B,).
    """

    tokens: Tensor
    scores: Tensor
    calls: Tensor
    positions: Tensor


class _Draws:
    """Random numbers of a step that do not depend on how many were drawn before, nor (on the CPU) on padding."""

    def __init__(self, generator: torch.Generator, steps: int, device: torch.device) -> None:
        drawn = torch.randint(1 << 62, (steps + 1,), generator=generator, device=generator.device)
        self._seeds = drawn.tolist()
        self._generator = torch.Generator(device)

    def uniform(self, step: int, batch: int, length: int, kinds: int) -> Tensor:
        """Return draws from [0, 1), float32 (kinds, B, N). Step -1 is before the first."""
        self._generator.manual_seed(self._seeds[step])
        shape = (length, batch, kinds)
        return torch.rand(shape, generator=self._generator, device=self._generator.device).permute(2, 1, 0)


class _Asked:
    """Asks the network, and counts."""

    def __init__(self, denoiser: Denoiser, tokens: Tensor, temperature: float) -> None:
        if temperature < 0:
            raise DiffusionError(f"temperature is {temperature}; expected 0 (the likeliest token) or more.")
        self._denoiser, self._temperature = denoiser, temperature
        self.calls = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
        self.positions = torch.zeros_like(self.calls)

    def propose(self, tokens: Tensor, wanted: Tensor, time: Tensor | float, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return a proposal for each wanted position and its ln f, (B, N) each; elsewhere the token itself and 0."""
        proposal, confidence = tokens.clone(), torch.zeros(tokens.shape, device=tokens.device)
        places = wanted.flatten().nonzero()[:, 0]
        if not len(places):
            return proposal, confidence
        asked = wanted.any(1)
        self.calls += asked
        self.positions += wanted.sum(1)
        rows = asked.nonzero()[:, 0]
        at = places if len(rows) == len(tokens) else wanted[rows].flatten().nonzero()[:, 0]
        times = torch.as_tensor(time, dtype=torch.float32, device=tokens.device).expand(len(tokens))
        log_p = self._denoiser(tokens[rows], times[rows], rows, at).float().log_softmax(-1)
        if self._temperature == 0:
            best, chosen = log_p.max(-1)
        else:
            chosen = categorical(log_p / self._temperature, uniform.reshape(-1)[places])
            best = log_p.gather(-1, chosen[:, None])[:, 0]
        proposal.view(-1)[places] = chosen
        confidence.view(-1)[places] = best
        return proposal, confidence


def categorical(log_weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw from softmax(log_weights) by inverting the distribution function, one draw from [0, 1) each, int64 (P,).

    In float64: sums of float32 over a large vocabulary lose the rare tokens.
    """
    edges = log_weights.double().softmax(-1).cumsum(-1)
    found = torch.searchsorted(edges, uniform.double()[:, None] * edges[:, -1:], right=True)
    return found[:, 0].clamp(max=log_weights.shape[-1] - 1)


def gumbel(uniform: Tensor) -> Tensor:
    """Turn draws from [0, 1) into standard Gumbel noise, same shape."""
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


def least(confidence: Tensor, count: Tensor, among: Tensor) -> Tensor:
    """Return the `count` positions of least confidence of each sequence; equal ones by position, bool (B, N).

    Args:
        confidence: (B, N).
        count: int64 (B,), at most the number of positions among which is chosen.
        among: Positions that are ranked, bool (B, N); padding and special tokens are not.
    """
    ranked = confidence.masked_fill(~among, math.inf)
    return (ranked.argsort(dim=1, stable=True).argsort(dim=1) < count[:, None]) & among


def ancestral_step(
    x_t: Tensor,
    prediction: Tensor,
    noisy: Tensor,
    cleans: Tensor,
    stays: Tensor | bool,
    kept: float,
    noise: Noise,
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    """Set the tokens of one step back and return them with the new flags of noise, (B, N) each.

    A token is noisy afterwards that was noisy and did not become clean, or was clean and did not stay. Arguments as in
    `components.diffusion.reparameterized.set_tokens`.
    """
    tokens = set_tokens(x_t, prediction, noisy, stays, cleans, kept, noise, uniform)
    lost = torch.zeros_like(noisy) if stays is True else ~noisy & ~stays
    return tokens, (noisy & ~cleans) | lost


def sample_ancestral(
    denoiser: Denoiser,
    tokens: Tensor,
    noisable: Tensor,
    noise: Noise,
    grid: Grid,
    steps: int,
    generator: torch.Generator,
    *,
    temperature: float = 0.0,
    offset: int = 0,
    exact: bool = False,
) -> Sampled:
    """Sample by the coins of the posterior.

    Args:
        denoiser: The network.
        tokens: int64 (B, N); where `noisable` they are replaced by noise, elsewhere they stay.
        noisable: Positions that are generated, bool (B, N).
        noise: q_n.
        grid: The T steps of the process.
        steps: M <= T jumps.
        generator: Source of the draws, on any device.
        temperature: Of the predictions; 0 takes the likeliest token.
        offset: Steps of the grid by which the coins run ahead: they are those of the jump to s - offset.
        exact: Throw both coins, a token counting as noisy where it differs from its prediction (which is then needed
            everywhere). Otherwise a token that became clean stays so.
    """
    draws, asked = _Draws(generator, steps, tokens.device), _Asked(denoiser, tokens, temperature)
    shape = tokens.shape
    x, noisy = torch.where(noisable, noise.at(draws.uniform(-1, *shape, 1)[0]), tokens), noisable.clone()
    scores = torch.zeros(shape, device=tokens.device)
    for step, (later, earlier) in enumerate(_jumps(grid, steps)):
        alpha_t, alpha_s = grid.alphas[later], grid.alphas[earlier]
        kept = float(alpha_t / alpha_s)
        uniform = draws.uniform(step, *shape, 5)
        clean = float(clean_probability(grid.alphas[max(0, earlier - offset)], alpha_t))
        cleans = (uniform[0] < clean) & noisy
        wanted = noisable if exact else cleans
        prediction, confidence = asked.propose(x, wanted, later / grid.steps, uniform[1])
        stays: Tensor | bool = True
        if exact:
            noisy = (x != prediction) & noisable
            cleans = (uniform[0] < clean) & noisy
            stays = (uniform[4] < routers(x, alpha_s, alpha_t, noise).stay) | ~noisable
        x, noisy = ancestral_step(x, prediction, noisy, cleans, stays, kept, noise, uniform[2:4])
        scores = torch.where(cleans, confidence, scores)
    return Sampled(x, scores, asked.calls, asked.positions)


@dataclass(frozen=True)
class Routing:
    """The rule of the routed sampler.

    Attributes:
        decay: How many tokens stay noise after a step: N (1 - p), or N cos(pi/2 p).
        conditional: A clean token becomes noise again only where its prediction is the token itself and is less sure
            than when the token was written; otherwise whenever it is among the least sure.
        randomness: g, Gumbel noise of scale g r(p) on the confidences before they are ranked.
    """

    decay: Decay = "cosine"
    conditional: bool = False
    randomness: float = 0.0


def sample_routed(
    denoiser: Denoiser,
    tokens: Tensor,
    noisable: Tensor,
    noise: Noise,
    grid: Grid,
    steps: int,
    generator: torch.Generator,
    *,
    routing: Routing,
    temperature: float = 0.0,
    watch: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Sampled:
    """Sample by confidence: after each step the least sure tokens are noise, whatever they were before.

    With x~ the proposal, c its ln f, s the score stored when a token was written, and low the K least sure positions:

        to noise:  clean and not v1, or noisy and low     (v1 fails where low; conditional: and x~ = x and c < s)
        to clean:  noisy and not low                      (x := x~, s := c)

    A clean token that is trusted keeps its value, whatever is proposed for it now.

    Args:
        denoiser: The network.
        tokens: int64 (B, N); where `noisable` they are replaced by noise, elsewhere they stay.
        noisable: Positions that are generated and ranked, bool (B, N).
        noise: q_n.
        grid: The T steps of the process; its alphas say how much of a noisy token is kept.
        steps: M <= T.
        generator: Source of the draws, on any device.
        routing: The rule.
        temperature: Of the proposals; 0 takes the likeliest token.
        watch: Called as `watch(step, tokens, noisy)` after each step.
    """
    draws, asked = _Draws(generator, steps, tokens.device), _Asked(denoiser, tokens, temperature)
    shape, lengths = tokens.shape, noisable.sum(1)
    x, noisy = torch.where(noisable, noise.at(draws.uniform(-1, *shape, 1)[0]), tokens), noisable.clone()
    scores = torch.zeros(shape, device=tokens.device)
    for step, (later, earlier) in enumerate(_jumps(grid, steps)):
        left = remaining_after(step, steps, lengths, routing.decay)
        # Where all become clean nothing is ranked, and what is clean already is final.
        wanted = noisable & (noisy | (left > 0)[:, None])
        uniform = draws.uniform(step, *shape, 4)
        proposal, confidence = asked.propose(x, wanted, later / grid.steps, uniform[0])
        ranked = confidence
        if routing.randomness:
            scale = routing.randomness * remaining_share((step + 1) / steps, routing.decay)
            ranked = confidence + scale * gumbel(uniform[1])
        low = least(ranked, left, noisable)
        refused = low & (proposal == x) & (confidence < scores) if routing.conditional else low
        to_noise = torch.where(noisy, low, refused)
        to_clean = noisy & ~low
        kept = float(grid.alphas[later] / grid.alphas[earlier])
        fresh = torch.where(uniform[2] < kept, x, noise.at(uniform[3]))
        if isinstance(noise, AbsorbingNoise):
            fresh = noise.at(uniform[3])
        x = torch.where(to_clean, proposal, torch.where(to_noise, fresh, x))
        scores = torch.where(to_clean, confidence, scores.masked_fill(to_noise, -math.inf))
        noisy = (noisy | refused) & low
        if watch is not None:
            watch(step, x, noisy)
    return Sampled(x, scores, asked.calls, asked.positions)


def sample_committing(
    denoiser: Denoiser,
    tokens: Tensor,
    noisable: Tensor,
    noise: AbsorbingNoise,
    steps: int,
    generator: torch.Generator,
    *,
    order: Literal["confidence", "random"] = "confidence",
    decay: Decay = "linear",
    revisable: bool = False,
    threshold: float | None = None,
    temperature: float = 0.0,
    randomness: float = 0.0,
    watch: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Sampled:
    """Sample from masks: each step writes some of the masked tokens, at least one of every sequence that has any.

    With M = N steps, linear decay, random order and temperature 1 this is order-agnostic autoregression.

    Args:
        denoiser: The network; it is asked for masked positions only.
        tokens: int64 (B, N); where `noisable` they are replaced by masks, elsewhere they stay.
        noisable: Positions that are generated, bool (B, N).
        noise: The mask.
        steps: M; after the last nothing is masked.
        generator: Source of the draws, on any device.
        order: Write the surest first, or any.
        decay: How many tokens stay masked after a step.
        revisable: Written tokens are ranked too, by the score they were written with, and may be masked again
            (Mask-Predict). Otherwise they are final.
        threshold: Write every token whose probability is above this, and at least one, instead of following `decay`.
        temperature: Of the proposals; 0 takes the likeliest token.
        randomness: Gumbel noise on the confidences, of a scale that falls linearly to 0 at the last step.
        watch: Called as `watch(step, tokens, masked)` after each step.
    """
    if threshold is not None and revisable:
        raise DiffusionError("threshold and revisable exclude each other: one commits by probability, one by rank.")
    draws, asked = _Draws(generator, steps, tokens.device), _Asked(denoiser, tokens, temperature)
    shape, lengths = tokens.shape, noisable.sum(1)
    x, masked = tokens.masked_fill(noisable, noise.mask_token_id), noisable.clone()
    scores = torch.zeros(shape, device=tokens.device)
    for step in range(steps):
        uniform = draws.uniform(step, *shape, 2)
        proposal, confidence = asked.propose(x, masked, masked.sum(1) / lengths.clamp(min=1), uniform[0])
        x = torch.where(masked, proposal, x)
        scores = torch.where(masked, confidence, scores)
        ranked = uniform[1] if order == "random" else scores
        if randomness:
            ranked = ranked + randomness * (1 - (step + 1) / steps) * gumbel(uniform[1])
        left = remaining_after(step, steps, lengths, decay)
        if not revisable:
            left = torch.minimum(left, (masked.sum(1) - 1).clamp(min=0))
        if threshold is not None and step + 1 < steps:
            unsure = ((confidence <= math.log(threshold)) & masked).sum(1)
            left = torch.minimum(unsure, (masked.sum(1) - 1).clamp(min=0))
        masked = least(ranked, left, noisable if revisable else masked)
        x = x.masked_fill(masked, noise.mask_token_id)
        if watch is not None:
            watch(step, x, masked)
    return Sampled(x, scores, asked.calls, asked.positions)


def _jumps(grid: Grid, steps: int) -> Iterator[tuple[int, int]]:
    yield from itertools.pairwise(grid.stride(steps))
