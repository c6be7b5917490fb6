"""Decoding by draft and verify, and the plain decoding that it must agree with.

    prompt -- prefill all but its last token, the root -- [ draft -- verify -- learn -- next root ] -- until the end

Letters: B prompts, T tokens of a prompt, N nodes of a tree, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from components.errors import TesseraError
from components.language.causal_lm import ContextOverflow
from components.language.speculative.choices import Choice, Greedy
from components.language.speculative.tree import DraftTree, Path
from components.language.speculative.tree_verify import verify
from components.nn.transformer import KeyValueCache

if TYPE_CHECKING:
    from components.language.causal_lm import CausalLM


class EmptyPrompt(TesseraError):
    """A prompt has no token, so there is no root to draft behind."""


class Drafter(Protocol):
    """Proposes what may come next.

    Attributes:
        depth: Most drafts on a path.
        nodes: Most nodes of a tree, the root included.
        update_on_prefill: Whether `begin` wants the prompt's logits.
    """

    depth: int
    nodes: int
    update_on_prefill: bool

    def begin(self, tokens: Tensor, logits: Tensor | None) -> None:
        """Start a new text whose cached tokens are (T,), with the logits behind them, (T, V), where they are wanted."""
        ...

    def draft(self, context: Sequence[int]) -> tuple[DraftTree, Tensor]:
        """Return a tree and the token of every node, (N,), behind a text whose last token is the root."""
        ...

    def observe(self, tokens: Tensor, logits: Tensor) -> None:
        """Learn from a verified tree: its tokens (N,) and the logits behind them, (N, V)."""
        ...


@dataclass(frozen=True)
class Decoded:
    """A continuation and how it was found.

    Attributes:
        tokens: The new tokens.
        accepted: How many of them each forward pass gave, at least 1; they add up to `len(tokens)`.
        paths: Path of the accepted drafts of each pass, one draft shorter than `accepted` says.
    """

    tokens: list[int]
    accepted: list[int]
    paths: list[Path]


@torch.no_grad()
def decode(
    model: CausalLM,
    prompt: Sequence[int],
    count: int,
    drafter: Drafter,
    choose: Choice | None = None,
    stop: int | None = None,
) -> Decoded:
    """Continue a prompt by draft and verify: the tokens are those that plain decoding with the same rule gives.

    Args:
        model: The model.
        prompt: At least one token.
        count: Tokens to add; surplus of the last pass is cut.
        drafter: Proposes drafts; it is told that a new text begins.
        choose: Rule for the next token; greedy by default.
        stop: Token behind which nothing is added.

    Raises:
        EmptyPrompt: The prompt has no token.
        ContextOverflow: Prompt, new tokens and the depth of a draft exceed the model's positions.
    """
    choose = choose or Greedy()
    if not len(prompt):
        raise EmptyPrompt("The prompt is empty; give at least one token, which the first draft grows from.")
    if (needed := len(prompt) + count + drafter.depth) > model.config.context:
        raise ContextOverflow(
            f"{len(prompt)} tokens of prompt, {count} new ones and drafts of {drafter.depth} need {needed} positions, "
            f"the model has {model.config.context}; shorten the prompt or ask for fewer tokens."
        )
    cache = KeyValueCache(len(prompt) + count + drafter.nodes)
    known = torch.tensor(prompt[:-1], dtype=torch.int64, device=model.device)
    logits = model(model.with_start(known[None]), cache)[0, 1:]
    drafter.begin(known, logits if drafter.update_on_prefill else None)
    text, end = list(prompt), len(prompt) + count
    accepted, paths = [], []
    while len(text) < end and (len(text) == len(prompt) or text[-1] != stop):
        tree, tokens = drafter.draft(text)
        found = verify(model, tree, tokens, cache, choose)
        drafter.observe(tokens, found.logits)
        new = found.tokens[: end - len(text)]
        if stop in new:
            new = new[: new.index(stop) + 1]
        text += new
        accepted.append(len(new))
        paths.append(tree.paths[found.nodes[-1]][: len(new) - 1])
    return Decoded(text[len(prompt) :], accepted, paths)


@torch.no_grad()
def continue_plainly(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    count: int,
    choices: Sequence[Choice] | None = None,
    stop: int | None = None,
) -> list[list[int]]:
    """Continue prompts of any lengths one token at a time, all together: no drafts, nothing to verify.

    In every pass each row reads one token, of its prompt as long as there is one and then its own choice, so all rows
    stand at the same position.

    Args:
        model: The model.
        prompts: B prompts, each of at least one token.
        count: Tokens to add to each.
        choices: One rule per prompt; all greedy by default.
        stop: Token behind which a text ends.

    Returns:
        The new tokens of each prompt, `count` of them or those up to and with `stop`.

    Raises:
        EmptyPrompt: A prompt has no token.
        ContextOverflow: A prompt and its new tokens exceed the model's positions.
    """
    lengths = [len(prompt) for prompt in prompts]
    if not min(lengths):
        raise EmptyPrompt("A prompt is empty; give at least one token to each.")
    rules, device = choices or [Greedy()], model.device
    shortest, last = min(lengths), max(lengths) + count - 1
    text = torch.zeros(len(prompts), last + 1, dtype=torch.int64, device=device)
    given = torch.arange(last + 1, device=device) < torch.tensor(lengths, device=device)[:, None]
    for row, prompt in enumerate(prompts):
        text[row, : len(prompt)] = torch.tensor(prompt, device=device)
    cache = KeyValueCache(last + 1)
    ahead = model.with_start(text[:, :shortest])
    for place in range(shortest, last + 1):
        logits = model(ahead, cache)[:, -1]
        where = torch.full((len(prompts),), place, device=device)
        if len(rules) == 1:
            scores = rules[0](logits, where)
        else:
            scores = torch.cat([rule(row[None], where[:1]) for rule, row in zip(rules, logits, strict=True)])
        chosen = scores.argmax(-1)
        text[:, place] = torch.where(given[:, place], text[:, place], chosen)
        ahead = text[:, place, None]
    new = [row[length : length + count] for row, length in zip(text.tolist(), lengths, strict=True)]
    return [row[: row.index(stop) + 1] if stop in row else row for row in new]
