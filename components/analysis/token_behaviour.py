"""Watching a transformer learn a Markov source: loss per character, and which simple model it behaves like.

Letters: B windows, T tokens of a window, V tokens, K contexts (last token and last k characters), P places looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from components.data.markov import Chain
from components.errors import TesseraError
from components.language.causal_lm import CausalLM
from components.language.unigram_lm import UnigramModel

_MIXED_IN = 1e-4
_CHUNK = 64

SERIES = {
    "nats_per_character": "nats/character",
    "kl_unigram": "nats/token",
    "kl_truth": "nats/token",
    "correlation_unigram": "",
    "correlation_truth": "",
}


class ShortText(TesseraError):
    """A text holds not one window."""


@dataclass(frozen=True)
class Windows:
    """A text cut into windows of T tokens; the tokens left at the end stay out.

    Attributes:
        tokens: (B, T) int64.
        starts: Characters of the window before each token, (B, T) int64.
        lengths: Characters of each token, (B, T) int64.
        contexts: Key of what decides the true next-token distribution at each token: the token before it, and the last
            k characters before it, (B, T) int64; -1 where the text has fewer.
    """

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    contexts: np.ndarray

    @classmethod
    def of(cls, chain: Chain, codes: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, context: int) -> Windows:
        """Cut an encoded text.

        Args:
            chain: Source of the text.
            codes: The text, (N,).
            tokens: Its tokens.
            lengths: Characters of each token of the vocabulary, (V,).
            context: T.

        Raises:
            ShortText: There are fewer than T tokens.
        """
        count = len(tokens) // context
        if not count:
            raise ShortText(f"The text has {len(tokens)} tokens; expected at least {context}, one window.")
        tokens = tokens[: count * context]
        spelled = lengths[tokens]
        begins = np.cumsum(spelled) - spelled
        keys = context_keys(chain, codes, tokens, begins)
        shape = (count, context)
        begins = begins.reshape(shape)
        return cls(tokens.reshape(shape), begins - begins[:, :1], spelled.reshape(shape), keys.reshape(shape))


def context_keys(chain: Chain, codes: np.ndarray, tokens: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return what decides the next token at each token: `(token before) A^k + state of the chain`, -1 at the start.

    The encodings here are valid iff every adjacent pair of tokens is (byte pairs; and a dictionary that holds every
    prefix of its tokens, read by the longest match). So given the last k characters and the token before, earlier
    tokens say nothing about the next one.
    """
    size, order, states = len(chain.alphabet), chain.order, len(chain.transitions)
    inside = begins >= order
    state = np.zeros(len(tokens), np.int64)
    for offset in range(order):
        state = state * size + codes[np.maximum(begins - order + offset, 0)]
    before = np.concatenate([[0], tokens[:-1]])
    inside[:1] = False
    return np.where(inside, before * states + state, -1)


class Probe:
    """Measures a model on held-out windows of a source.

    The first characters of each window are left out: there no model of tokens knows where it is.

    Args:
        held_out: Windows of new text.
        training: Windows that the true conditional and the unigram are counted on.
        vocabulary_size: V.
        startup: Characters left out at the beginning of each window.
        device: Where the model will be.
    """

    def __init__(
        self, held_out: Windows, training: Windows, vocabulary_size: int, startup: int, device: str | torch.device
    ) -> None:
        unigram = UnigramModel.fit(training.tokens.ravel(), vocabulary_size).log_probabilities
        known, table = conditional_table(training.contexts.ravel(), training.tokens.ravel(), np.exp(unigram))
        counted = (held_out.starts >= startup) & (held_out.contexts >= 0)
        if not counted.any():
            raise ShortText(f"No token of the held-out windows begins behind their first {startup} characters.")
        self.characters = int(held_out.lengths[counted].sum())
        # Contexts that training never showed are behind the last row, where the unigram stands.
        row = np.searchsorted(known, held_out.contexts)
        row = np.where(known[np.minimum(row, len(known) - 1)] == held_out.contexts, row, len(known))
        self._tokens = torch.from_numpy(held_out.tokens).to(device)
        self._counted = torch.from_numpy(counted).to(device)
        self._row = torch.from_numpy(row).to(device)
        self._unigram = torch.from_numpy(unigram).to(device)
        self._table = torch.from_numpy(np.log(table)).to(device)

    @torch.no_grad()
    def measure(self, model: CausalLM) -> Tensor:
        """Return the values of SERIES, (5,) float64 on the model's device."""
        sums = torch.zeros(7, dtype=torch.float64, device=self._tokens.device)
        kept = torch.zeros(2, dtype=torch.float64, device=self._tokens.device)
        for first in range(0, len(self._tokens), _CHUNK):
            tokens = self._tokens[first : first + _CHUNK]
            counted = self._counted[first : first + _CHUNK]
            logs = model(model.with_start(tokens[:, :-1])).double().log_softmax(-1)[counted]  # [P, V]
            truth = self._table[self._row[first : first + _CHUNK][counted]]
            unigram = self._unigram.expand_as(truth)
            p, u, t = logs.exp(), unigram.exp(), truth.exp()
            kept += torch.stack([logs.gather(-1, tokens[counted][:, None]).sum(), counted.sum()])
            sums += torch.stack(
                [(p * (logs - unigram)).sum(), (p * (logs - truth)).sum()]
                + [each.sum() for each in (p * p, u * u, t * t, p * u, p * t)]
            )
        places, values = kept[1], kept[1] * self._table.shape[1]
        mean = 1 / self._table.shape[1]  # of probabilities that sum to one
        spread = [total / values - mean**2 for total in sums[2:5]]
        common = [total / values - mean**2 for total in sums[5:7]]
        correlations = [both / (spread[0] * own).sqrt() for both, own in zip(common, spread[1:], strict=True)]
        measured = [-kept[0] / self.characters, sums[0] / places, sums[1] / places, *correlations]
        return torch.stack(measured).nan_to_num(0.0)


def conditional_table(contexts: np.ndarray, tokens: np.ndarray, unigram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the next-token distribution of every context.

    Impossible tokens get a share of 1e-4 of the unigram, so that a model's divergence from the truth is finite.

    Args:
        contexts: Keys, (P,), -1 for none.
        tokens: Token behind each, (P,).
        unigram: Share of each token, (V,).

    Returns:
        The keys in ascending order, (K,), and their distributions, (K + 1, V), the last one the unigram.
    """
    known, row = np.unique(contexts[contexts >= 0], return_inverse=True)
    size = len(unigram)
    counts = np.bincount(row * size + tokens[contexts >= 0], minlength=len(known) * size).reshape(len(known), size)
    shares = counts / counts.sum(1, keepdims=True)
    return known, np.vstack([(1 - _MIXED_IN) * shares + _MIXED_IN * unigram, unigram[None]])


class WatchedModel(nn.Module):
    """A language model and what was seen while it learned, so that both survive a kill together.

    Attributes:
        model: The language model.
        trace: SERIES at every step of the schedule, (looks, 5) float64; NaN where not yet looked.
    """

    def __init__(self, model: CausalLM, probe: Probe, schedule: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self._probe, self._schedule = probe, {step: row for row, step in enumerate(schedule)}
        trace = torch.full((len(schedule), len(SERIES)), torch.nan, dtype=torch.float64)
        self.register_buffer("trace", trace, persistent=False)

    def look(self, done: int) -> None:
        """Measure the model if the schedule says so after `done` steps."""
        if done in self._schedule:
            self.trace[self._schedule[done]] = self._probe.measure(self.model)


def schedule(steps: int, early_steps: int, early_every: int, late_every: int) -> tuple[int, ...]:
    """Return after how many steps to look: often at first, then less often, and at the end."""
    early = range(early_every, min(early_steps, steps) + 1, early_every)
    late = range(early_steps + late_every, steps + 1, late_every)
    return tuple(sorted({*early, *late, steps}))
