"""Autoregression in any order: orders, what is trained, and the exact density of any part of a text given the rest.

An order gives every position of a text a rank; the m lowest ranks are the prompt. For any network with an oracle mask
(`components.nn.two_stream_transformer`)

    ln p(masked | prompt) = sum_{r >= m} ln p(x_r | x_<r)

is one pass. It is the true joint law that parallel decoding departs from.

Letters: B texts, N tokens of a text, V tokens of the vocabulary, m tokens of a prompt.

Source: Guo and Ermon 2025, "Reviving Any-Subset Autoregressive Models with Principled Parallel Sampling and Speculative
Decoding"; orders of the binary lattice: Shih et al. 2022, "Training and Inference on Any-Order Autoregressive Models
the Right Way", section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError
from components.nn.two_stream_transformer import content_mask, query_mask


class OrderError(TesseraError):
    """An order or a law of mask rates has no meaning."""


class AnyOrderModel(Protocol):
    """A network that answers at any positions from the tokens that masks let through."""

    vocabulary_size: int
    mask_token_id: int

    def __call__(self, tokens: Tensor, content: Tensor, query: Tensor, queries: Tensor | None = None) -> Tensor:
        """Return logits (B, Q, V); see `TwoStreamTransformer.forward`."""


@dataclass(frozen=True)
class Order:
    """In which order the tokens of texts are known.

    Attributes:
        ranks: sigma, rank of each position, int64 (B, N).
        prompt: m, how many tokens of each text are given, int64 (B,); they have the lowest ranks.
    """

    ranks: Tensor
    prompt: Tensor

    @property
    def masked(self) -> Tensor:
        """Positions that are not given, bool (B, N)."""
        return self.ranks >= self.prompt[:, None]

    @property
    def positions(self) -> Tensor:
        """Position of each rank, int64 (B, N)."""
        return self.ranks.argsort(1)

    def __getitem__(self, rows: Tensor) -> Order:
        """Return the orders of some texts."""
        return Order(self.ranks[rows], self.prompt[rows])

    def to(self, device: torch.device | str) -> Order:
        """Return the orders on another device."""
        return Order(self.ranks.to(device), self.prompt.to(device))


def lattice_order(visible: Tensor) -> Order:
    """Rank the visible positions first and the others after them, each from left to right.

    2^N orders instead of N!, so that each conditional is asked often: a token from all that is visible and the masked
    tokens to its left.

    Args:
        visible: bool (B, N).
    """
    prompt = visible.sum(1)
    given, others = visible.cumsum(1) - 1, (~visible).cumsum(1) - 1
    return Order(torch.where(visible, given, others + prompt[:, None]), prompt)


def random_order(visible: Tensor, generator: torch.Generator | None = None) -> Order:
    """Rank the visible positions first and the others after them, each in a random order: any of N! permutations.

    Args:
        visible: bool (B, N).
        generator: Source of the draws, on the device of `visible`.
    """
    noise = torch.rand(visible.shape, generator=generator, device=visible.device, dtype=torch.float64)
    return Order((noise + ~visible).argsort(1).argsort(1), visible.sum(1))


def hide(counts: Tensor, length: int, generator: torch.Generator | None = None) -> Tensor:
    """Hide a number of random positions in each text and return what stays visible, bool (B, N).

    Args:
        counts: Positions to hide, int64 (B,).
        length: N.
        generator: Source of the draws, on the device of `counts`.
    """
    noise = torch.rand(len(counts), length, generator=generator, device=counts.device, dtype=torch.float64)
    return noise.argsort(1).argsort(1) >= counts[:, None]


@dataclass(frozen=True)
class MaskRates:
    """How much of a text is masked in training: at first `start`, then from a range that widens and moves linearly.

    With f = min(1, step / warmup_steps), rates are uniform between `start + f (low - start)` and
    `start + f (high - start)`.

    Attributes:
        start: Rate of the first step.
        low, high: Range after the warm-up.
        warmup_steps: Steps of the way there.
    """

    start: float
    low: float
    high: float
    warmup_steps: int

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 1 and 0 <= self.low <= self.high <= 1 and self.warmup_steps >= 0):
            raise OrderError(f"{self}; expected 0 <= low <= high <= 1, 0 <= start <= 1 and warmup_steps >= 0.")

    def bounds(self, step: int) -> tuple[float, float]:
        """Return the range of rates at a step."""
        share = 1.0 if step >= self.warmup_steps else step / self.warmup_steps
        return self.start + share * (self.low - self.start), self.start + share * (self.high - self.start)

    def draw(self, step: int, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw one rate for each text of a batch, one in each of B equal parts of the range, float64 (B,)."""
        low, high = self.bounds(step)
        place = torch.rand(batch, generator=generator, dtype=torch.float64)
        return low + (high - low) * (torch.arange(batch) + place) / batch

    def counts(self, step: int, batch: int, length: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw how many of N tokens are masked in each text, 1 to N, int64 (B,)."""
        return (self.draw(step, batch, generator) * length).round().long().clamp(1, length)


def joint_nats(model: AnyOrderModel, tokens: Tensor, order: Order) -> Tensor:
    """Return -ln p(x_r | x_<r) at every position, 0 in the prompt, float32 (B, N); their sum is -ln p(masked | prompt).

    One pass under the oracle mask.

    Args:
        model: The network.
        tokens: Whole texts, int64 (B, N).
        order: In which order.
    """
    masks = content_mask(order.ranks, order.prompt), query_mask(order.ranks, order.prompt)
    return _nats(model(tokens, *masks), tokens, order.masked)


def parallel_nats(model: AnyOrderModel, tokens: Tensor, order: Order) -> Tensor:
    """Return -ln p(x_i | prompt) at every position, 0 in the prompt, float32 (B, N): masked tokens do not see another.

    What masked diffusion trains.

    Args:
        model: The network.
        tokens: Whole texts, int64 (B, N).
        order: Only its prompts matter.
    """
    hidden = tokens.masked_fill(order.masked, model.mask_token_id)
    masks = content_mask(order.ranks, order.prompt), query_mask(order.ranks, order.prompt, order.prompt)
    return _nats(model(hidden, *masks), tokens, order.masked)


def mean_nats(nats: Tensor, order: Order) -> Tensor:
    """Return the mean over all masked tokens of a batch, each weighted alike whatever its text's rate: the loss."""
    return nats.sum() / order.masked.sum()


def _nats(logits: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
    nats = F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), reduction="none")
    return nats.view(tokens.shape) * masked


@torch.no_grad()
def sequential_nats(model: AnyOrderModel, tokens: Tensor, order: Order) -> Tensor:
    """Return -ln p(x_r | x_<r) at every position as `joint_nats` does, but by a call for each rank, float32 (B, N).

    In every call all tokens known so far are the prompt and see each other. For a network trained with masked tokens
    blind to each other this is the law of decoding one token after the other; the oracle mask asks it what it never
    learned.

    Args:
        model: The network.
        tokens: Whole texts, int64 (B, N).
        order: In which order.
    """
    nats = torch.zeros(tokens.shape, device=tokens.device)
    positions = order.positions
    for rank in range(int(order.prompt.min()), tokens.shape[1]):
        known = Order(order.ranks, order.prompt.clamp(min=rank))
        queries = positions[:, rank, None]
        logits = next_logits(model, tokens, known, known.prompt, queries)[:, 0]
        cost = F.cross_entropy(logits.float(), tokens.gather(1, queries)[:, 0], reduction="none")
        nats.scatter_(1, queries, (cost * (rank >= order.prompt))[:, None])
    return nats


def next_logits(model: AnyOrderModel, tokens: Tensor, order: Order, progress: Tensor, queries: Tensor) -> Tensor:
    """Return what the tokens below rank n say of some positions: the draft mask, (B, Q, V).

    Args:
        model: The network.
        tokens: Texts, int64 (B, N); ranks from n on are not read.
        order: In which order.
        progress: n of each text, int64 (B,).
        queries: Positions asked for, int64 (B, Q).
    """
    hidden = tokens.masked_fill(order.ranks >= progress[:, None], model.mask_token_id)
    masks = content_mask(order.ranks, order.prompt), query_mask(order.ranks, order.prompt, progress, queries)
    return model(hidden, *masks, queries)


def oracle_logits(model: AnyOrderModel, tokens: Tensor, order: Order, queries: Tensor) -> Tensor:
    """Return what the tokens of all lower ranks say of some positions: the oracle mask, (B, Q, V).

    Args:
        model: The network.
        tokens: Texts, int64 (B, N); known up to the rank of each position asked for.
        order: In which order.
        queries: Positions asked for, int64 (B, Q).
    """
    masks = content_mask(order.ranks, order.prompt), query_mask(order.ranks, order.prompt, queries=queries)
    return model(tokens, *masks, queries)


def blind_denoiser(model: AnyOrderModel) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return a network as a denoiser of `components.diffusion.samplers`: what is known is the prompt.

    Args:
        model: The network, trained with masked tokens blind to each other.
    """

    def denoise(tokens: Tensor, _times: Tensor, _rows: Tensor, wanted: Tensor) -> Tensor:
        order = lattice_order(tokens != model.mask_token_id)
        queries = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return next_logits(model, tokens, order, order.prompt, queries).flatten(0, 1)[wanted]

    return denoise
