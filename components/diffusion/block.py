"""Block diffusion: blocks of S tokens follow one another; inside a block masked tokens are predicted from both sides.

    p(x) = prod_b p(x^b | x^{<b}),        each factor a masked diffusion inside block b

Two passes share the work. Reading turns clean tokens into keys and values; denoising predicts a noisy block from what
was read before it. In training both see whole sequences under masks, in sampling they take turns and what was read is
kept:

    training   reading:    clean block i  sees  clean blocks <= i
               denoising:  noisy block i  sees  clean blocks <  i  and noisy block i        (one attention, keys joined)
    sampling   read the prompt; then, block after block: T times denoise the block, once read the finished block

A prompt counts as one block before the first, whatever its length. It is clean, is read whole, and is never denoised.

Letters: B sequences, P tokens of the prompt, N tokens behind it, S tokens of a block, T steps of a block, V words that
may be predicted (the mask is none of them).

Sources: Arriola et al. 2025, "Block Diffusion: Interpolating Between Autoregressive and Diffusion Language Models",
section 3 and appendix B (the doubled sequence); Arriola et al. 2025, "Encoder-Decoder Diffusion Language Models for
Efficient Training and Inference", sections 3 and 4.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from components.diffusion.likelihood import Nats
from components.diffusion.noise import AbsorbingNoise, block_times, blocks_of, mask_blocks
from components.diffusion.samplers import sample_committing
from components.diffusion.schedules import DiffusionError


@dataclass(frozen=True)
class BlockMasks:
    """Who sees whom when all blocks are computed at once; True where a query (row) sees a key (column).

    Attributes:
        prompt: P.
        block: S.
        reading: Clean tokens among themselves, bool (P + N, P + N).
        denoising: Noisy tokens to clean tokens and then to noisy ones, bool (N, P + N + N).
        doubled: Both in one sequence, clean tokens before noisy ones, bool (P + 2 N, P + 2 N).
    """

    prompt: int
    block: int
    reading: Tensor
    denoising: Tensor
    doubled: Tensor


@functools.lru_cache(maxsize=32)
def block_masks(prompt: int, length: int, block: int, device: torch.device | str = "cpu") -> BlockMasks:
    """Return the masks of P prompt tokens and N further ones in blocks of S.

    Denoising is strict: a noisy block that saw its own clean tokens would copy them.

    Raises:
        DiffusionError: S does not divide N.
    """
    blocks_of(length, block)
    of_noisy = torch.arange(length, device=device) // block + 1
    of_clean = torch.cat([torch.zeros(prompt, dtype=torch.int64, device=device), of_noisy])
    reading = of_clean[None] <= of_clean[:, None]
    denoising = torch.cat([of_clean[None] < of_noisy[:, None], of_noisy[None] == of_noisy[:, None]], 1)
    return BlockMasks(prompt, block, reading, denoising, torch.cat([F.pad(reading, (0, length)), denoising]))


class BlockNetwork(Protocol):
    """A network that reads clean tokens and denoises noisy ones; see `components.nn.encoder_decoder_block`."""

    def __call__(self, clean: Tensor, noisy: Tensor, masks: BlockMasks) -> Tensor:
        """Return logits (B, N, V) of noisy tokens (B, N) given clean ones (B, P + N): the pass of training."""

    def remember(self, clean: Tensor, masks: BlockMasks) -> Any:
        """Read clean tokens (B, P + N) and return what denoising sees of them."""

    def recall(self, noisy: Tensor, memory: Any, masks: BlockMasks) -> Tensor:
        """Return logits (B, N, V) of noisy tokens given what was read: with `remember` the same as a call."""

    def new_cache(self, capacity: int) -> Any:
        """Return an empty cache for so many tokens."""

    def read(self, tokens: Tensor, cache: Any) -> None:
        """Read the next clean tokens, (B, T), and keep what denoising sees of them."""

    def denoise(self, noisy: Tensor, cache: Any) -> Tensor:
        """Return the states (B, S, D) of a noisy block behind what is cached, and leave the cache as it is."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) of states (..., D)."""


def with_prompt(prompt: Tensor | None, tokens: Tensor) -> Tensor:
    """Put prompts (B, P) in front of tokens (B, N)."""
    return tokens if prompt is None else torch.cat([prompt, tokens], 1)


def block_loss(
    network: BlockNetwork,
    prompt: Tensor | None,
    tokens: Tensor,
    block: int,
    noise: AbsorbingNoise,
    generator: torch.Generator | None,
) -> Tensor:
    """Return -sum over masked tokens of ln p / N of one draw of noise, in nats per token.

    Every block has a time of its own, t ~ U(0, 1), and at least one mask. There is no weight 1 / t: it belongs to the
    likelihood bound, whose estimator is `components.diffusion.likelihood.BoundEstimator` with `block` set.

    Args:
        network: What predicts.
        prompt: Clean tokens in front, never masked, int64 (B, P); None for none.
        tokens: Clean tokens in blocks, int64 (B, N).
        block: S.
        noise: The mask.
        generator: Source of the noise, on the device of `tokens`.

    Raises:
        DiffusionError: S does not divide N.
    """
    times = block_times(*tokens.shape, block, generator, tokens.device)
    noisy = mask_blocks(tokens, times, noise, block, generator)
    masks = block_masks(0 if prompt is None else prompt.shape[1], tokens.shape[1], block, tokens.device)
    return masked_nats(network(with_prompt(prompt, tokens), noisy, masks), tokens, noisy, noise)


def masked_nats(logits: Tensor, tokens: Tensor, noisy: Tensor, noise: AbsorbingNoise) -> Tensor:
    """Return -sum over masked tokens of ln p, over all tokens; logits (B, N, V), tokens and noisy ones (B, N)."""
    targets = tokens.masked_fill(noisy != noise.mask_token_id, -100)
    total = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=-100)
    return total / tokens.numel()


@torch.no_grad()
def block_nats(
    network: BlockNetwork, prompt: Tensor | None, tokens: Tensor, block: int, context: Tensor | None = None
) -> Nats:
    """Return -ln p of the true tokens as the likelihood bound asks for it; clean tokens are read once for all draws.

    Args:
        network: What predicts.
        prompt: int64 (B, P); None for none.
        tokens: The true tokens, int64 (B, N).
        block: S.
        context: Tokens that the blocks before are taken from instead of `tokens`, int64 (B, N): what a block costs
            when it follows something else.
    """
    masks = block_masks(0 if prompt is None else prompt.shape[1], tokens.shape[1], block, tokens.device)
    memory = network.remember(with_prompt(prompt, tokens if context is None else context), masks)

    def cost(noisy: Tensor, masked: Tensor, times: Tensor) -> Tensor:
        logits = network.recall(noisy, memory, masks).float()
        return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")

    return cost


@dataclass(frozen=True)
class BlockSamples:
    """Sequences written block by block, and what they cost.

    Attributes:
        tokens: Without the prompt, int64 (B, N).
        scores: ln p of each token when it was written, float32 (B, N).
        readings: Calls of the reading pass, the prompt's included.
        denoisings: Calls of the denoising pass.
        positions: Positions whose prediction was computed, over all sequences and calls.
        evaluations: Denoising calls that each sequence took part in unfinished, int64 (B,).
    """

    tokens: Tensor
    scores: Tensor
    readings: int
    denoisings: int
    positions: int
    evaluations: Tensor


class _CachedBlock:
    """A block behind a cache, as the samplers ask for it; counts its calls."""

    def __init__(self, network: BlockNetwork, cache: Any) -> None:
        self._network, self._cache = network, cache
        self._tokens: Tensor | None = None
        self.calls = 0

    def __call__(self, tokens: Tensor, times: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        self.calls += 1
        if self._tokens is None or len(rows) == len(self._tokens):
            self._tokens = tokens
            hidden = self._network.denoise(tokens, self._cache)
        else:
            # The cache holds all sequences, so those that are finished come along.
            self._tokens = self._tokens.index_copy(0, rows, tokens)
            hidden = self._network.denoise(self._tokens, self._cache)[rows]
        return self._network.logits(hidden.flatten(0, 1)[wanted])


@torch.no_grad()
def sample_blocks(
    network: BlockNetwork,
    prompt: Tensor,
    blocks: int,
    block: int,
    noise: AbsorbingNoise,
    steps: int,
    generator: torch.Generator,
    *,
    order: Literal["confidence", "random"] = "confidence",
    threshold: float | None = None,
    temperature: float = 0.0,
) -> BlockSamples:
    """Write blocks one after the other behind a prompt, each by masked denoising with cached keys.

    In every step all masked tokens of the block are predicted and all but the least sure floor((1 - alpha_s) S) are
    written, at least one; a written token stays (`components.diffusion.samplers.sample_committing`). With T = S that is
    one token a step. `order="random", temperature=1` with T = S draws the ancestral process itself at the times at
    which its tokens appear, one at a time in random order (first hitting).

    Args:
        network: What predicts.
        prompt: int64 (B, P), P >= 1 or a batch of empty prompts, which are not read.
        blocks: How many blocks are written.
        block: S.
        noise: The mask.
        steps: T <= S, of each block.
        generator: Source of the draws, on any device.
        order: Write the surest first, or any.
        threshold: Write all tokens of more than this probability, and at least one, instead of an equal share a step.
        temperature: Of the proposals; 0 takes the likeliest token.

    Raises:
        DiffusionError: T is not in 1 .. S.
    """
    if not 1 <= steps <= block:
        raise DiffusionError(f"{steps} steps for a block of {block} tokens; expected 1 to {block}.")
    cache = network.new_cache(prompt.shape[1] + blocks * block)
    readings = 0
    if prompt.shape[1]:
        network.read(prompt, cache)
        readings += 1
    blank = torch.full((len(prompt), block), noise.mask_token_id, device=prompt.device)
    everywhere = torch.ones_like(blank, dtype=torch.bool)
    written, scores, denoisings = [], [], 0
    evaluations = torch.zeros(len(prompt), dtype=torch.int64, device=prompt.device)
    positions = torch.zeros_like(evaluations)
    for _ in range(blocks):
        denoiser = _CachedBlock(network, cache)
        sampled = sample_committing(
            denoiser, blank, everywhere, noise, steps, generator,
            order=order, threshold=threshold, temperature=temperature,
        )  # fmt: skip
        network.read(sampled.tokens, cache)
        readings, denoisings = readings + 1, denoisings + denoiser.calls
        written.append(sampled.tokens)
        scores.append(sampled.scores)
        evaluations += sampled.calls
        positions += sampled.positions
    return BlockSamples(
        torch.cat(written, 1), torch.cat(scores, 1), readings, denoisings, int(positions.sum()), evaluations
    )
