"""The forward process: every token is kept with a probability, or replaced by a draw from a noise distribution.

    q(x_t | x_0) = alpha_t delta(x_0) + (1 - alpha_t) q_n       independently for every token that may be noised

Absorbing noise is always the mask; uniform noise is any ordinary token (multinomial diffusion). Blocks of a sequence
may have times of their own.

Letters: B sequences, N tokens, V tokens of the vocabulary, S tokens of a block.

Sources: Austin et al. 2021, "Structured Denoising Diffusion Models in Discrete State-Spaces", section 3.1 (absorbing);
Hoogeboom et al. 2021, "Argmax Flows and Multinomial Diffusion", section 4 (uniform); Arriola et al. 2025, "Block
Diffusion", section 3 (a time for each block).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.diffusion.schedules import DiffusionError


class Noise:
    """A noise distribution q_n over a vocabulary: uniform over some tokens, or all on one of them.

    Args:
        vocabulary_size: V.
        tokens: The ids that noise may take, each with the same probability.
    """

    def __init__(self, vocabulary_size: int, tokens: Sequence[int]) -> None:
        ids = sorted(set(tokens))
        if not ids or ids[0] < 0 or ids[-1] >= vocabulary_size:
            raise DiffusionError(
                f"Noise takes ids {ids[:5]}{'...' if len(ids) > 5 else ''} of a vocabulary of {vocabulary_size}; "
                f"expected one or more of 0 .. {vocabulary_size - 1}."
            )
        self.vocabulary_size = vocabulary_size
        self.ids = torch.tensor(ids)
        self.distribution = torch.zeros(vocabulary_size, dtype=torch.float64)
        self.distribution[self.ids] = 1 / len(ids)

    def probability(self, tokens: Tensor) -> Tensor:
        """Return q_n of tokens, same shape, float64."""
        return self.distribution.to(tokens.device)[tokens]

    def at(self, uniform: Tensor) -> Tensor:
        """Turn uniform draws from [0, 1) into noise, int64 of the same shape."""
        ids = self.ids.to(uniform.device)
        return ids[(uniform.double() * len(ids)).long().clamp(max=len(ids) - 1)]

    def transition(self, kept: float) -> Tensor:
        """Return the matrix kept * I + (1 - kept) * 1 q_n^T of one step, rows are what is left, (V, V) float64."""
        return kept * torch.eye(self.vocabulary_size, dtype=torch.float64) + (1 - kept) * self.distribution


class AbsorbingNoise(Noise):
    """All noise is the mask.

    Args:
        vocabulary_size: V, the mask included.
        mask_token_id: Id of the mask.
    """

    def __init__(self, vocabulary_size: int, mask_token_id: int) -> None:
        super().__init__(vocabulary_size, [mask_token_id])
        self.mask_token_id = mask_token_id

    def at(self, uniform: Tensor) -> Tensor:
        """Return the mask everywhere, int64 of the shape of `uniform`."""
        return torch.full(uniform.shape, self.mask_token_id, device=uniform.device)


class UniformNoise(Noise):
    """Noise is any ordinary token with the same probability.

    Args:
        vocabulary_size: V.
        special: Ids that are never noise: padding, the mask, starts and ends. A transition into them would tell the
            network at once that the token is wrong.
    """

    def __init__(self, vocabulary_size: int, special: Sequence[int] = ()) -> None:
        super().__init__(vocabulary_size, [token for token in range(vocabulary_size) if token not in set(special)])


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device)


def corrupt(
    tokens: Tensor,
    kept: Tensor | float,
    noise: Noise,
    generator: torch.Generator | None = None,
    *,
    noisable: Tensor | None = None,
) -> Tensor:
    """Draw x_t given x_0 (or any earlier x_s): each token stays with probability `kept`, else becomes noise.

    Args:
        tokens: x_0 or x_s, int64 (B, N).
        kept: alpha_t, or alpha_t / alpha_s from x_s; a number, (B, 1) or (B, N).
        noise: What replaces a token.
        generator: Source of the draws, on the device of `tokens`.
        noisable: Tokens that may be noised, bool (B, N): no padding, no prompt, nothing special. All where None.
    """
    replaced = _uniform(tokens, generator) >= kept
    if noisable is not None:
        replaced = replaced & noisable
    return torch.where(replaced, noise.at(_uniform(tokens, generator)), tokens)


def block_times(batch: int, length: int, block: int, generator: torch.Generator | None, device=None) -> Tensor:
    """Draw a time u ~ U(0, 1) for every block of S tokens and return it for every token, float32 (B, N).

    Raises:
        DiffusionError: Blocks of S do not divide N tokens.
    """
    blocks = blocks_of(length, block)
    return torch.rand(batch, blocks, generator=generator, device=device).repeat_interleave(block, dim=1)


def blocks_of(length: int, block: int) -> int:
    """Return how many blocks of S tokens N tokens are.

    Raises:
        DiffusionError: S does not divide N.
    """
    if block < 1 or length % block:
        raise DiffusionError(f"Blocks of {block} tokens do not divide {length}; choose a divisor, or pad.")
    return length // block


def choose(count: Tensor, among: Tensor, generator: torch.Generator | None) -> Tensor:
    """Choose positions at random, so many of each row; every set of that size is equally likely.

    Args:
        count: How many, int64 (..., 1); where fewer positions are allowed, all of those are chosen.
        among: Positions to choose from, bool (..., S).
        generator: Source of the order.

    Returns:
        bool (..., S).
    """
    order = _uniform(among, generator).masked_fill(~among, 2.0)
    return (order.argsort(-1).argsort(-1) < count) & among


def mask_blocks(
    tokens: Tensor,
    times: Tensor,
    noise: AbsorbingNoise,
    block: int,
    generator: torch.Generator | None,
    *,
    noisable: Tensor | None = None,
) -> Tensor:
    """Mask tokens of every block with its own probability, at least one of every block that has something to mask.

    A block without a mask teaches nothing: it is masked again at a random number of random positions. This makes the
    draw unfit for a likelihood bound (`components.diffusion.likelihood` has none of it).

    Args:
        tokens: Clean tokens, int64 (B, N).
        times: Probability of masking, (B, N), the same all over a block (`block_times`).
        noise: The mask.
        block: S.
        generator: Source of the draws, on the device of `tokens`.
        noisable: Tokens that may be masked, bool (B, N); all where None.

    Returns:
        int64 (B, N).
    """
    allowed = torch.ones_like(tokens, dtype=torch.bool) if noisable is None else noisable
    shape = (tokens.shape[0], blocks_of(tokens.shape[1], block), block)
    allowed = allowed.reshape(shape)
    masked = (_uniform(allowed, generator) < times.reshape(shape)) & allowed
    room = allowed.sum(-1, keepdim=True)
    count = (_uniform(room, generator) * room).long().clamp(max=room - 1) + 1
    again = choose(count, allowed, generator)
    masked = torch.where(masked.any(-1, keepdim=True), masked, again)
    return tokens.masked_fill(masked.reshape(tokens.shape), noise.mask_token_id)
