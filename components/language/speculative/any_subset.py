"""Filling any gaps of texts: several tokens a call, with or without verification, every text at its own progress.

    parallel     k drafts from one call are all kept: fast, and not the joint law unless k = 1 (sequential decoding)
    speculative  drafts -- oracle call, the exact law of each given those before -- accept or replace -- progress n

With the network as its own drafter, the first draft is drawn from the very law it is verified against. So two calls
give two tokens or more, and a text never takes more calls than it has tokens to fill (for k >= 2; with k = 1, and for
the last token, nothing is verified).

Letters: B texts, A of them unfinished, N tokens of a text, k drafts, V tokens of the vocabulary, n progress.

Source: Guo and Ermon 2025, "Reviving Any-Subset Autoregressive Models with Principled Parallel Sampling and Speculative
Decoding", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from components.errors import TesseraError
from components.language.any_order import AnyOrderModel, Order, next_logits, oracle_logits
from components.language.speculative.rejection import draw, judge


class FillingError(TesseraError):
    """Gaps were to be filled with settings that have no meaning."""


@dataclass(frozen=True)
class Filled:
    """Texts without gaps, and what they cost.

    Attributes:
        tokens: int64 (B, N).
        calls: Network evaluations that each text took part in, int64 (B,).
        reached: How often draft s of each text was judged, int64 (B, k); 0 everywhere where nothing is verified.
        accepted: How often it was accepted, int64 (B, k).
    """

    tokens: Tensor
    calls: Tensor
    reached: Tensor
    accepted: Tensor


class Drafter(Protocol):
    """Proposes tokens for the next ranks.

    Attributes:
        calls: Network evaluations of one draft.
        exact: Whether the first draft is drawn from the law that it is to have.
    """

    calls: int
    exact: bool

    def draft(
        self, tokens: Tensor, order: Order, progress: Tensor, queries: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return drafts (A, k) and what each was drawn from, (A, k, V).

        Args:
            tokens: Texts, int64 (A, N), masked from rank n on.
            order: In which order.
            progress: n, int64 (A,).
            queries: Positions of the ranks n .. n + k - 1, the last one repeated where there are fewer, int64 (A, k).
            generator: Source of the draws.
        """
        ...


class SelfDrafter:
    """The network drafts for itself: independent tokens, all from what is known, in one call.

    Args:
        model: The network.
        temperature: Logits are divided by it; the same as in verification.
    """

    calls, exact = 1, True

    def __init__(self, model: AnyOrderModel, temperature: float = 1.0) -> None:
        self._model, self._temperature = model, temperature

    def draft(
        self, tokens: Tensor, order: Order, progress: Tensor, queries: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return drafts and their law; see `Drafter`."""
        logits = next_logits(self._model, tokens, order, progress, queries)
        law = probabilities(logits, self._temperature)
        return draw(law, generator), law


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(z / T) in float32 at least: in half precision p / q of equal laws is not 1."""
    return (logits.float() / temperature).softmax(-1)


@torch.no_grad()
def fill_in_parallel(
    model: AnyOrderModel,
    tokens: Tensor,
    order: Order,
    k: int,
    generator: torch.Generator | None = None,
    *,
    temperature: float = 1.0,
) -> Filled:
    """Fill gaps k tokens a call, each blind to the others of its call; k = 1 is sequential decoding.

    Args:
        model: The network.
        tokens: Texts, int64 (B, N); only their prompts are read.
        order: Which tokens are given, and in which order the others follow.
        k: Tokens of a call.
        generator: Source of the draws, on the model's device.
        temperature: Logits are divided by it, above 0.

    Raises:
        FillingError: k or the temperature is not positive.
    """
    drafter = SelfDrafter(model, temperature)
    state = _Filling(model, tokens, order, k, temperature)
    for step in state.steps():
        drafts, _ = drafter.draft(step.tokens, step.order, step.progress, step.queries, generator)
        state.commit(step.rows, step.written(drafts), step.progress + step.counts, 1)
    return state.filled()


@torch.no_grad()
def fill_speculatively(
    model: AnyOrderModel,
    tokens: Tensor,
    order: Order,
    k: int,
    generator: torch.Generator | None = None,
    *,
    temperature: float = 1.0,
    drafter: Drafter | None = None,
) -> Filled:
    """Fill gaps by draft and verify: the joint law of sequential decoding in the same order.

    Args:
        model: The network.
        tokens: Texts, int64 (B, N); only their prompts are read.
        order: Which tokens are given, and in which order the others follow.
        k: Drafts of an iteration.
        generator: Source of the draws, on the model's device.
        temperature: Logits are divided by it, above 0.
        drafter: Who drafts; the network itself by default.

    Raises:
        FillingError: k or the temperature is not positive.
    """
    drafter = drafter or SelfDrafter(model, temperature)
    state = _Filling(model, tokens, order, k, temperature)
    for step in state.steps():
        drafts, law = drafter.draft(step.tokens, step.order, step.progress, step.queries, generator)
        written = step.written(drafts)
        # A single draft from the exact law is final.
        unsure = (step.counts > 1).nonzero()[:, 0] if drafter.exact else torch.arange(len(drafts), device=drafts.device)
        reached = step.progress + step.counts
        calls = torch.full_like(reached, drafter.calls)
        if len(unsure):
            queries, counts = step.queries[unsure], step.counts[unsure]
            logits = oracle_logits(model, written[unsure], step.order[unsure], queries)
            target = probabilities(logits, temperature)
            if drafter.exact:
                # Equal by the masks, but not to the last bit, and one refusal by rounding would cost a call too many.
                target[:, 0] = law[unsure, 0]
            found = judge(target, law[unsure], drafts[unsure], counts, generator)
            calls[unsure] += 1
            reached[unsure] = step.progress[unsure] + found.committed
            written[unsure] = step[unsure].written(found.tokens)
            state.count(step.rows[unsure], found.accepted, counts)
        state.commit(step.rows, written, reached, calls)
    return state.filled()


@dataclass(frozen=True)
class _Step:
    """The unfinished texts of one iteration."""

    rows: Tensor  # which texts they are, (A,)
    tokens: Tensor  # (A, N)
    order: Order
    progress: Tensor  # (A,)
    counts: Tensor  # tokens drafted, (A,)
    queries: Tensor  # (A, k)

    def __getitem__(self, rows: Tensor) -> _Step:
        fields = (self.rows, self.tokens, self.order, self.progress, self.counts, self.queries)
        return _Step(*(each[rows] for each in fields))

    def written(self, drafts: Tensor) -> Tensor:
        """Return the texts with their drafts (A, k) in them."""
        there = torch.arange(drafts.shape[1], device=drafts.device) < self.counts[:, None]
        length = self.tokens.shape[1]
        # Drafts that are not there go into a column of their own, which is cut off again.
        padded = torch.cat([self.tokens, self.tokens[:, :1]], 1)
        return padded.scatter(1, self.queries.where(there, length), drafts)[:, :length]


class _Filling:
    """Texts on their way, each with its own progress."""

    def __init__(self, model: AnyOrderModel, tokens: Tensor, order: Order, k: int, temperature: float) -> None:
        if k < 1 or not temperature > 0:
            raise FillingError(f"k is {k} and the temperature {temperature}; expected k >= 1 and a temperature > 0.")
        self._mask, self._k, self._order = model.mask_token_id, k, order
        self._tokens = tokens.masked_fill(order.masked, self._mask)
        self._positions, self._progress = order.positions, order.prompt.clone()
        self._calls = torch.zeros_like(order.prompt)
        self._reached = torch.zeros(len(tokens), k, dtype=torch.int64, device=tokens.device)
        self._accepted = torch.zeros_like(self._reached)
        self._ahead = torch.arange(k, device=tokens.device)

    def steps(self) -> Iterator[_Step]:
        """Yield what is unfinished until nothing is."""
        length = self._tokens.shape[1]
        while len(rows := (self._progress < length).nonzero()[:, 0]):
            progress = self._progress[rows]
            ranks = (progress[:, None] + self._ahead).clamp(max=length - 1)
            queries = self._positions[rows].gather(1, ranks)
            counts = (length - progress).clamp(max=self._k)
            yield _Step(rows, self._tokens[rows], self._order[rows], progress, counts, queries)

    def commit(self, rows: Tensor, tokens: Tensor, progress: Tensor, calls: Tensor | int) -> None:
        """Keep texts up to a rank; what was drafted behind it is masked again."""
        ranks = self._order.ranks[rows]
        self._tokens[rows] = tokens.masked_fill(ranks >= progress[:, None], self._mask)
        self._progress[rows] = progress
        self._calls[rows] += calls

    def count(self, rows: Tensor, accepted: Tensor, counts: Tensor) -> None:
        """Count drafts that were judged (those behind a refused one are not) and accepted."""
        self._reached[rows] += (self._ahead <= accepted[:, None]) & (self._ahead < counts[:, None])
        self._accepted[rows] += self._ahead < accepted[:, None]

    def filled(self) -> Filled:
        """Return the finished texts."""
        return Filled(self._tokens, self._calls, self._reached, self._accepted)
