"""Rules that choose the next token; verification emits exactly what the rule would have chosen one by one.

Letters: N rows, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Choice(Protocol):
    """A rule that turns logits into the next token: the one with the largest score.

    Attributes:
        independent: Whether two rows with the same context may be scored differently.
    """

    independent: bool

    def __call__(self, logits: Tensor, places: Tensor) -> Tensor:
        """Return the scores of all tokens, (N, V), from logits (N, V) of tokens at positions `places` (N,)."""
        ...


class Greedy:
    """The likeliest token: the score is z."""

    independent = False

    def __call__(self, logits: Tensor, places: Tensor) -> Tensor:
        """Return the logits, (N, V)."""
        return logits


class Sampling:
    """A new draw in each row: the score is z / t + g, with fresh Gumbel noise g, so the law is softmax(z / t).

    Args:
        temperature: Logits are divided by it, above 0.
        generator: Source of randomness, on the logits' device.

    Source: Gumbel 1954; Maddison et al. 2014, "A* Sampling", section 2.
    """

    independent = True

    def __init__(self, temperature: float, generator: torch.Generator) -> None:
        self._temperature = temperature
        self._generator = generator

    def __call__(self, logits: Tensor, places: Tensor) -> Tensor:
        """Return scores with new noise, (N, V)."""
        uniform = torch.rand(logits.shape, generator=self._generator, dtype=torch.float64, device=logits.device)
        return logits / self._temperature + _gumbel(uniform).to(logits.dtype)


class CoupledSampling:
    """Sampling whose noise belongs to the absolute position: z / temperature + g[position of the new token].

    Whoever decodes the same text with the same noise draws the same tokens, so decoders can be compared token for
    token as if they were greedy, on text that does not loop as greedy text does.

    Args:
        temperature: Logits are divided by it, above 0.
        positions: Positions that there is noise for: the context of the model plus the token behind it.
        vocabulary_size: V.
        seed: Seed of the noise of one text.
    """

    independent = False

    def __init__(self, temperature: float, positions: int, vocabulary_size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._noise = _gumbel(torch.rand(positions, vocabulary_size, generator=generator, dtype=torch.float64))
        self._temperature = temperature

    def __call__(self, logits: Tensor, places: Tensor) -> Tensor:
        """Return scores with the noise of the positions behind, (N, V)."""
        self._noise = self._noise.to(logits.device)
        return logits / self._temperature + self._noise[places + 1].to(logits.dtype)


def _gumbel(uniform: Tensor) -> Tensor:
    return -(-uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log()).log()
