"""Probabilistic context-free grammars in Chomsky normal form: likelihoods, best trees and expected rule counts.

A grammar has a start symbol, N nonterminals and T preterminals and three kinds of rules,

    S -> A        A -> B C        P -> w        (A nonterminal, B and C either kind, P preterminal, w a token),

so every tree over n tokens has n - 1 binary rules. Symbols are numbered nonterminals first, preterminals behind them.
Everything runs on a batch of sentences of one length, each with rule probabilities of its own.

Letters: `B` sentences, `n` tokens of a sentence, `N` nonterminals, `P` preterminals, `M = N + P` symbols, `S` spans of
one width, `K` ways to split a span whose both halves are longer than a token.

Sources: Baker 1979 (the inside algorithm); Eisner 2016, "Inside-outside and forward-backward algorithms are just
backprop" (expected counts and best trees as gradients).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.errors import TesseraError


class GrammarError(TesseraError):
    """Rule probabilities or sentences do not fit together."""


@dataclass(frozen=True)
class Rules:
    """Log probabilities of the rules of B sentences.

    Attributes:
        root: log P(S -> A), (B, N).
        binary: log P(A -> B C), (B, N, M, M).
        leaves: log P(P -> w_i) of each token of the sentences, (B, n, P).
    """

    root: Tensor
    binary: Tensor
    leaves: Tensor

    def __post_init__(self) -> None:
        (batch, nonterminals), (_, length, preterminals) = self.root.shape, self.leaves.shape
        symbols = nonterminals + preterminals
        if self.binary.shape != (batch, nonterminals, symbols, symbols) or len(self.leaves) != batch:
            raise GrammarError(
                f"binary rules are {tuple(self.binary.shape)} and leaves {tuple(self.leaves.shape)} for roots "
                f"{tuple(self.root.shape)}; expected ({batch}, {nonterminals}, {symbols}, {symbols}) and "
                f"({batch}, n, {preterminals})."
            )
        if length < 2:
            raise GrammarError(f"sentences of {length} tokens; S -> A -> B C derives at least 2.")


def inside(rules: Rules) -> Tensor:
    """Return the log probability of each sentence, summed over all its trees, (B,).

        beta(i, i, P) = P(P -> w_i)
        beta(i, j, A) = sum_{B, C} P(A -> B C) sum_{i <= k < j} beta(i, k, B) beta(k + 1, j, C)
        p(w) = sum_A P(S -> A) beta(1, n, A)

    A span's values are kept as numbers of at most 1 and the logarithm of what they were divided by, so that the sums
    are matrix products and nothing underflows. Halves of one token are preterminals and longer ones nonterminals, so
    of the M^2 pairs of children only those that can occur at a split are formed.
    """
    nonterminals, n = rules.binary.shape[1], rules.leaves.shape[1]
    parts = {kind: block.contiguous() for kind, block in _blocks(rules.binary.exp(), nonterminals).items()}
    scale = rules.leaves.detach().amax(-1)
    leaves = (rules.leaves - scale.unsqueeze(-1)).exp()
    # A rule with a token as its left (right) child, given the token: (B, n, parent, other child).
    token_left = torch.einsum("bnp,bapc->bnac", leaves, parts["PN"])
    token_right = torch.einsum("bnp,bacp->bnac", leaves, parts["NP"])
    inner = parts["NN"].flatten(2).transpose(1, 2)
    tiny = torch.finfo(leaves.dtype).tiny
    values, scales = [None] * (n + 1), [None, scale, *[None] * (n - 1)]
    for width in range(2, n + 1):
        count = n - width + 1
        # The scale of a split is that of its halves together; the largest one becomes the span's.
        splits = torch.stack([scales[k][:, :count] + scales[width - k][:, k : k + count] for k in range(1, width)], -1)
        scale = splits.amax(-1)
        if width == 2:
            pairs = leaves[:, :-1].unsqueeze(-1) * leaves[:, 1:].unsqueeze(-2)
            total = pairs.flatten(2) @ parts["PP"].flatten(2).transpose(1, 2)
        else:
            weights = (splits - scale.unsqueeze(-1)).exp()
            before, after = values[width - 1][:, 1:] * weights[..., :1], values[width - 1][:, :-1] * weights[..., -1:]
            total = (token_left[:, :count] * before.unsqueeze(-2)).sum(-1)
            total = total + (token_right[:, width - 1 :] * after.unsqueeze(-2)).sum(-1)
        if width > 3:
            left = torch.stack([values[k][:, :count] for k in range(2, width - 1)], 3)
            right = torch.stack([values[width - k][:, k : k + count] for k in range(2, width - 1)], 2)
            pairs = (left * weights[:, :, None, 1:-1]) @ right
            total = total + pairs.flatten(2) @ inner
        largest = total.detach().amax(-1).clamp_min(tiny)
        values[width], scales[width] = total / largest.unsqueeze(-1), scale + largest.log()
    top = (rules.root.exp() * values[n][:, 0]).sum(-1)
    return top.log() + scales[n][:, 0]


def best_spans(rules: Rules) -> Tensor:
    """Return the spans of each sentence's most probable tree, bool (B, n, n): entry (i, w) is the span of w + 1 tokens
    that begins at i. Tokens themselves (w = 0) are not marked, whole sentences are.

    The gradient of the best score with respect to a number that is added to every span is 1 where the best tree has
    the span.
    """
    rules = Rules(rules.root.detach(), rules.binary.detach(), rules.leaves.detach())
    batch, n, _ = rules.leaves.shape
    nonterminals = rules.root.shape[1]
    with torch.enable_grad():
        marks = rules.leaves.new_zeros(batch, n, n).requires_grad_()
        parts = _blocks(rules.binary, nonterminals)
        scores = [None, rules.leaves]
        for width in range(2, n + 1):
            count = n - width + 1
            rest = scores[width - 1][:, 1 : 1 + count]
            found = [_best_pair(scores[1][:, :count], rest, parts["PP" if width == 2 else "PN"])]
            if width > 2:
                found.append(_best_pair(scores[width - 1][:, :count], scores[1][:, width - 1 :], parts["NP"]))
            for k in range(2, width - 1):
                found.append(_best_pair(scores[k][:, :count], scores[width - k][:, k : k + count], parts["NN"]))
            best = torch.stack(found).max(0).values
            scores.append(best + marks[:, :count, width - 1, None])
        score = (rules.root + scores[n][:, 0]).max(-1).values.sum()
        (gradient,) = torch.autograd.grad(score, marks)
    return gradient > 0.5


def expected_counts(rules: Rules) -> Tensor:
    """Return how often each binary rule is used, in expectation over the trees of each sentence, (B, N, M, M).

    The gradient of log p(w) with respect to log P(A -> B C); the entries of a sentence sum to n - 1.
    """
    with torch.enable_grad():
        binary = rules.binary.detach().requires_grad_()
        value = inside(Rules(rules.root.detach(), binary, rules.leaves.detach())).sum()
        (gradient,) = torch.autograd.grad(value, binary)
    return gradient


@dataclass(frozen=True)
class TreeShapes:
    """How trees look, averaged over sentences.

    Attributes:
        depth: Mean number of binary rules above a token, (B,).
        right_branching: Share of spans of three tokens or more whose first token is split off alone, (B,).
        left_branching: Share whose last token is split off alone, (B,).
    """

    depth: Tensor
    right_branching: Tensor
    left_branching: Tensor

    @classmethod
    def of(cls, spans: Tensor) -> TreeShapes:
        """Describe trees given as spans (B, n, n), see `best_spans`."""
        n = spans.shape[1]
        widths = torch.arange(1, n + 1, device=spans.device)
        longer = spans[:, :, 2:]
        inner = longer.sum((1, 2)).clamp_min(1).double()
        shorter = spans[:, :, 1:-1]
        # Behind the last start there are no spans, so rolling brings in only empty entries.
        right = longer & shorter.roll(-1, 1)
        left = longer & shorter
        return cls(
            (spans * widths).sum((1, 2)).double() / n,
            right.sum((1, 2)).double() / inner,
            left.sum((1, 2)).double() / inner,
        )


def _blocks(binary: Tensor, nonterminals: int) -> dict[str, Tensor]:
    """Split rules (B, N, M, M) by the kinds of their children, each (B, N, left, right)."""
    first, rest = slice(None, nonterminals), slice(nonterminals, None)
    cut = {"NN": (first, first), "NP": (first, rest), "PN": (rest, first), "PP": (rest, rest)}
    return {kind: binary[:, :, left, right] for kind, (left, right) in cut.items()}


def _best_pair(left: Tensor, right: Tensor, rules: Tensor) -> Tensor:
    """Return the best score of each nonterminal over pairs of children, (B, S, N)."""
    pairs = (left.unsqueeze(-1) + right.unsqueeze(-2)).flatten(2)
    return (pairs.unsqueeze(2) + rules.flatten(2).unsqueeze(1)).max(-1).values
