"""Running a causal language model step by step, with the keys and values of earlier tokens kept.

Letters: B sequences, T tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from components.nn.transformer import KeyValueCache

if TYPE_CHECKING:
    from components.language.causal_lm import CausalLM


@torch.no_grad()
def generate(
    model: CausalLM, tokens: Tensor, count: int, generator: torch.Generator, temperature: float = 1.0
) -> Tensor:
    """Continue sequences by sampling, one cached step per token.

    Args:
        model: The model.
        tokens: Prompts of one length, (B, T); T may be 0.
        count: Tokens to add; T + count is at most the context.
        generator: Source of randomness, on the model's device.
        temperature: Logits are divided by it; 0 takes the likeliest token.

    Returns:
        The new tokens, (B, count).

    Raises:
        ContextOverflow: There are more tokens than positions.
    """
    cache = KeyValueCache(model.config.context)
    given, new = model.with_start(tokens), []
    for _ in range(count):
        logits = model(given, cache)[:, -1]
        if temperature > 0:
            given = torch.multinomial((logits.float() / temperature).softmax(-1), 1, generator=generator)
        else:
            given = logits.argmax(-1, keepdim=True)
        new.append(given)
    return torch.cat(new, dim=1) if new else tokens[:, :0]


class PrefixSession:
    """Next-token distributions of one context after another, computing only what the last one did not share.

    Args:
        model: The model.

    Attributes:
        calls: Evaluations of the model so far; a context that begins the last one costs none.
    """

    def __init__(self, model: CausalLM) -> None:
        self.calls = 0
        self._model = model
        self._cache = KeyValueCache(model.config.context)
        self._tokens: list[int] = []
        self._rows: list[Tensor] = []  # ln P(next token) after the first 0, 1, ... tokens

    @torch.no_grad()
    def next(self, tokens: Sequence[int]) -> Tensor:
        """Return ln P(next token | tokens), (V,) float64: one call of the model where it is not known yet."""
        tokens = list(tokens)
        shared = 0
        while shared < min(len(tokens), len(self._tokens)) and tokens[shared] == self._tokens[shared]:
            shared += 1
        if shared < len(tokens) or not self._rows:
            self._extend(tokens, shared)
        return self._rows[len(tokens)]

    def _extend(self, tokens: list[int], shared: int) -> None:
        # The cache holds the start token, too: with `shared` tokens it holds shared + 1 and has as many rows.
        known = min(shared + 1, len(self._rows))
        del self._rows[known:]
        self._cache.length = known
        given = [self._model.start_token, *tokens][known:]
        logits = self._model(torch.tensor([given], device=self._model.device), self._cache)
        self._rows += list(logits[0].double().log_softmax(-1))
        self._tokens = tokens
        self.calls += 1
