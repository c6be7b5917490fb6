"""Unbiased next-character probabilities from a model of tokens.

A model of tokens that is asked with `encode(x)` conditions on more than x: on the tokenizer not having made longer
tokens, which says something about what comes next. The probability of x itself is a sum over the token sequences that
cover it, and a conditional is a ratio of two such sums:

    P(x_1..n) = sum over cover(x_1..n) of P(t_1..t_i),        P(c | x_1..n) = P(x_1..n c) / P(x_1..n),
    cover(x)  = valid sequences whose text begins with x while the text without the last token does not.

Every prefix of a valid sequence is valid, so all of a cover's sequences but their last token are encodings of
beginnings of x: `cover(x_1..n) = {encode(x_1..m) t : m < n, x_m+1..n is a prefix of t, valid}`.

Letters: B texts, Q strings, R rows (one per partial encoding), T tokens, V vocabulary, A alphabet. Sums are taken in
log space (nats). Symbols are the characters of `str`; bytes pass as latin-1.

Source: Phan et al. 2024, "Understanding and Mitigating Tokenization Bias in Language Models" (arXiv 2406.16829);
covers: Phan et al. 2024, "Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model
Ensembles".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from components.tokenizers.text.trie import VocabularyTrie
from components.tokenizers.text.validity import TextTokenizer, Validity


class TokenModel(Protocol):
    """Whatever predicts tokens."""

    def along(self, tokens: Tensor) -> Tensor:
        """Return ln P(next token) after the first 0 .. T tokens of each sequence, (B, T) to (B, T + 1, V) float64."""


class GreedyTokenizer(TextTokenizer, Protocol):
    """Maximum prefix encoding, with its vocabulary by first symbols."""

    trie: VocabularyTrie


NextToken = Callable[[Sequence[int]], Tensor]
"""ln P(next token | tokens), (V,): one call of a model."""


class Truncated:
    """A model of tokens without the mass that it leaves on sequences no tokenizer produces.

    `P(t | t_1..t_i)` becomes 0 where the sequence turns invalid, and the rest is renormalised; on encoded text this
    never increases the cross-entropy. A token that no text goes on from counts as invalid as well: texts have no end
    here, and the mass would be lost behind it. The result is a consistent process over characters.

    Args:
        model: The model.
        validity: The tokenizer's valid sequences.
    """

    def __init__(self, model: TokenModel, validity: Validity) -> None:
        self._model = model
        self._validity = validity

    def along(self, tokens: Tensor) -> Tensor:
        """Return ln P(next token) after the first 0 .. T tokens of each sequence, (B, T) to (B, T + 1, V) float64."""
        states = self._validity.states(tokens.cpu().numpy())
        return _restrict(self._model.along(tokens), self._validity.lasting_rows(states))

    def lost(self, tokens: Tensor) -> Tensor:
        """Return the probability that truncation takes away after the first 0 .. T tokens, (B, T) to (B, T + 1)."""
        states = self._validity.states(tokens.cpu().numpy())
        log_probabilities = self._model.along(tokens)
        forbidden = torch.from_numpy(~self._validity.lasting_rows(states)).to(log_probabilities.device)
        return (log_probabilities.exp() * forbidden).sum(-1)


def truncated_calls(next_token: NextToken, validity: Validity) -> NextToken:
    """Truncate, as `Truncated` does, a model that is called context by context."""

    def truncated(tokens: Sequence[int]) -> Tensor:
        return _restrict(next_token(tokens), validity.lasting_rows(np.array(validity.state(tokens))))

    return truncated


def _restrict(log_probabilities: Tensor, allowed: np.ndarray) -> Tensor:
    mask = torch.from_numpy(allowed).to(log_probabilities.device)
    kept = log_probabilities.masked_fill(~mask, -math.inf)
    total = kept.logsumexp(-1, keepdim=True)
    # Behind a sequence that nothing can follow there is nothing to normalise.
    return kept - total.masked_fill(total == -math.inf, 0.0)


def max_prefix_log_probability(
    next_token: NextToken, tokenizer: GreedyTokenizer, rest: str, context: Sequence[int] = ()
) -> float:
    """Return ln P(the text goes on with `rest` | tokens): Maximum Prefix Correction, call by call.

        compute(r, t_1..t_k) = sum_{v in V: r is a prefix of v} P(v | t_1..t_k)
                               + P(t* | t_1..t_k) compute(r without t*, t_1..t_k t*),   t* = first token of encode(r),

    without the second term once t* is the whole of r. The next token either covers all of r or ends inside it, and
    then it is t*. One call per token of encode(r): linear in the length of r.

    Args:
        next_token: The model, truncated by the caller if it is to be.
        tokenizer: Maximum prefix encoding.
        rest: r, not empty.
        context: t_1..t_k, a beginning of the encoding that is certain whatever follows.

    Source: Phan et al. 2024 (arXiv 2406.16829), the Maximum Prefix Correction algorithm.
    """
    context, log_pass, terms = list(context), 0.0, []
    trie = tokenizer.trie
    for token in tokenizer.encode(rest):
        log_probabilities = next_token(context)
        covering = torch.from_numpy(trie.below(rest)).to(log_probabilities.device)
        if len(covering):
            terms.append(log_pass + float(log_probabilities[covering].logsumexp(-1)))
        log_pass += float(log_probabilities[token])
        context.append(token)
        rest = rest[len(trie.vocabulary[token]) :]
    return float(torch.tensor(terms, dtype=torch.float64).logsumexp(-1))


def cover(tokenizer: TextTokenizer, validity: Validity, text: str) -> list[tuple[int, ...]]:
    """Return all valid sequences that cover a text, each once: the definition, beginning by beginning."""
    found = []
    longest = max(map(len, tokenizer.vocabulary))
    for place in range(max(0, len(text) - longest), len(text)):
        left, rest = tuple(tokenizer.encode(text[:place])), text[place:]
        state = validity.state(left)
        for token, spelled in enumerate(tokenizer.vocabulary):
            if spelled.startswith(rest) and validity.step(state, token) >= 0:
                found.append((*left, token))
    return found


class DirectPrompting:
    """The biased way: the first character of the next token, given `encode(x)`.

    `P(c | x) = sum_{t: t begins with c} P(t | encode(x))`.

    Args:
        model: The model.
        tokenizer: Any tokenizer.
    """

    def __init__(self, model: TokenModel, tokenizer: TextTokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._symbols = _Symbols(VocabularyTrie(tokenizer.vocabulary))
        self.alphabet = self._symbols.alphabet

    def next_log_probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return ln P(c | x) of every character in the order of `alphabet`, (B, A)."""
        runs = _Runs(self._model, [self._tokenizer.encode(text) for text in texts])
        rows = runs.last()
        owner = np.arange(len(texts))
        return self._symbols.sums(rows, owner, np.zeros_like(owner), len(texts))


class MaxPrefixCorrection:
    """Maximum Prefix Correction of many texts at once: the recursion's calls are places of one forward pass.

    Args:
        model: The model, truncated by the caller if it is to be.
        tokenizer: Maximum prefix encoding.
    """

    def __init__(self, model: TokenModel, tokenizer: GreedyTokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._lengths = np.array([len(token) for token in tokenizer.vocabulary])
        self.alphabet = tokenizer.trie.alphabet

    def log_probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return ln P(x) of texts from their start, (Q,)."""
        return self._compute(texts, np.zeros(len(texts), np.int64))

    def next_log_probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return ln P(c | x) of every character in the order of `alphabet`, (B, A), from x's last certain cut."""
        cuts = np.array([self._tokenizer.certain_tokens(text) for text in texts], np.int64)
        longer = [text + character for text in texts for character in self.alphabet]
        values = self._compute([*texts, *longer], np.concatenate([cuts, cuts.repeat(len(self.alphabet))]))
        below, above = values[: len(texts)], values[len(texts) :].view(len(texts), -1)
        return above - below[:, None]

    def _compute(self, strings: Sequence[str], starts: np.ndarray) -> Tensor:
        """Return ln P(x_j+1..N | t_1..t_i), i = starts[q] tokens of encode(x) spelling x_1..j, (Q,).

        Level k of the recursion stands behind k tokens; its rest begins where they end.
        """
        trie = self._tokenizer.trie
        encodings = [self._tokenizer.encode(string) for string in strings]
        counts = np.array([len(encoding) for encoding in encodings])
        # The last token is never conditioned on: it covers all that is left.
        runs = _Runs(self._model, [encoding[:-1] for encoding in encodings])

        tokens = _pad(encodings)  # [Q, K]
        levels = np.arange(tokens.shape[1])
        ends = self._lengths[tokens].cumsum(1)
        inside = (levels >= starts[:, None]) & (levels < counts[:, None])
        string, level = np.nonzero(inside)
        begins = (ends - self._lengths[tokens])[string, level]
        codes, lengths = trie.code_matrix(strings)
        node = trie.walk(codes[string], begins, lengths[string])
        string, level, node = string[node >= 0], level[node >= 0], node[node >= 0]

        rows = runs.rows(string, level)
        rank = torch.from_numpy(trie.rank).to(rows.device)
        low, high = (torch.from_numpy(bound[node]).to(rows.device)[:, None] for bound in (trie.low, trie.high))
        branches = rows.masked_fill((rank < low) | (rank >= high), -math.inf).logsumexp(-1)
        terms = branches + runs.passes(starts)[string, level]
        values = _log_sums(terms, torch.from_numpy(string).to(rows.device), len(strings))
        # Behind a cut at the very end there is nothing left to cover.
        return values.masked_fill(torch.from_numpy(counts == starts).to(values.device), 0.0)


class CoverCorrection:
    """The sum over valid covers, for BPE and every other tokenizer whose valid sequences have valid prefixes.

    One row per text and beginning of it, for the last beginnings that a token can reach over the end from.

    Args:
        model: The model, truncated by the caller if it is to be.
        validity: The tokenizer's valid sequences.
    """

    def __init__(self, model: TokenModel, validity: Validity) -> None:
        self._model = model
        self._validity = validity
        self._trie = VocabularyTrie(validity.tokenizer.vocabulary)
        self._symbols = _Symbols(self._trie)
        self.alphabet = self._symbols.alphabet

    def log_probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return ln P(x) of texts from their start, (Q,)."""
        covers = self._covers(texts)
        return covers.certain + self._given_certain(covers, len(texts))

    def next_log_probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return ln P(c | x) of every character in the order of `alphabet`, (B, A), from x's last certain cut.

        A cover of x c either covers x already, reaching beyond it with c, or is encode(x) and a token that begins
        with c.
        """
        covers = self._covers(texts)
        # Where a token ends exactly with x it has no further symbol here; it goes on in the row of encode(x).
        above = self._symbols.sums(covers.joint, covers.text, covers.rest, len(texts))
        return above - self._given_certain(covers, len(texts))[:, None]

    def _given_certain(self, covers: _Covers, count: int) -> Tensor:
        """Return ln P(x | its certain tokens), (B,): the rows with something left to cover."""
        rows = np.flatnonzero(covers.rest > 0)
        device = covers.joint.device
        sums = covers.joint[torch.from_numpy(rows).to(device)].logsumexp(-1)
        values = _log_sums(sums, torch.from_numpy(covers.text[rows]).to(device), count)
        all_certain = np.bincount(covers.text[rows], minlength=count) == 0
        return values.masked_fill(torch.from_numpy(all_certain).to(device), 0.0)

    def _covers(self, texts: Sequence[str]) -> _Covers:
        trie, tokenizer = self._trie, self._validity.tokenizer
        lefts, owner, rests, certain = [], [], [], []
        for index, text in enumerate(texts):
            tokens = tokenizer.encode(text)
            head = tokens[: tokenizer.certain_tokens(text)]
            cut = len(tokenizer.decode(head))
            for place in range(max(cut, len(text) - trie.longest), len(text) + 1):
                # A certain cut splits the encoding: what stands behind it is encoded on its own.
                lefts.append(head + tokenizer.encode(text[cut:place]))
                owner.append(index)
                rests.append(text[place:])
                certain.append(len(head))
        runs = _Runs(self._model, lefts)
        states = self._validity.states(runs.tokens)[np.arange(len(lefts)), runs.lengths]
        distinct, places = np.unique(states, return_inverse=True)
        valid = np.stack([self._validity.continuations(int(state)) for state in distinct])[places]
        node = np.array([trie.node(rest) for rest in rests])
        covering = (trie.rank >= trie.low[node, None]) & (trie.rank < trie.high[node, None]) & (node >= 0)[:, None]

        owner, certain = np.array(owner), np.array(certain)
        passes = runs.passes(certain)[np.arange(len(lefts)), runs.lengths]
        joint = runs.last() + passes[:, None]
        joint = joint.masked_fill(torch.from_numpy(~(valid & covering)).to(joint.device), -math.inf)
        first = np.searchsorted(owner, np.arange(len(texts)))
        head = runs.passes(np.zeros_like(first), first)[np.arange(len(texts)), certain[first]]
        return _Covers(owner, np.array([len(rest) for rest in rests]), joint, head)


@dataclass(frozen=True)
class _Covers:
    """Covers of B texts in R rows, one per text x and beginning x_1..m.

    Attributes:
        text: Which text a row belongs to, ascending, (R,).
        rest: Length of x_m+1..n, what the row's last token covers, (R,).
        joint: ln P(encode(x_1..m) t | certain tokens of x) where t covers validly, else -inf, (R, V).
        certain: ln P(certain tokens of x), (B,).
    """

    text: np.ndarray
    rest: np.ndarray
    joint: Tensor
    certain: Tensor


class _Symbols:
    """Sums over tokens by their symbol at some depth."""

    def __init__(self, trie: VocabularyTrie) -> None:
        self.alphabet = trie.alphabet
        # [L + 1, V]: code of the symbol behind the first 0 .. L ones, -1 where the token has ended.
        self._at = np.full((trie.longest + 1, len(trie.vocabulary)), -1, np.int64)
        for identity, token in enumerate(trie.vocabulary):
            self._at[: len(token), identity] = trie.codes(token)

    def sums(self, rows: Tensor, owner: np.ndarray, depth: np.ndarray, count: int) -> Tensor:
        """Return ln of the sum of exp(rows), (R, V) to (count, A), by owner and by the token's symbol at `depth`."""
        symbol = self._at[depth]
        groups = np.where(symbol >= 0, owner[:, None] * len(self.alphabet) + symbol, -1)
        sums = _log_sums(rows, torch.from_numpy(groups).to(rows.device), count * len(self.alphabet))
        return sums.view(count, len(self.alphabet))


class _Runs:
    """Next-token distributions along R token sequences; one that begins another is read off the longer one's pass.

    Attributes:
        tokens: Sequences, padded with 0, (R, T).
        lengths: Their numbers of tokens, (R,).
    """

    def __init__(self, model: TokenModel, sequences: Sequence[Sequence[int]]) -> None:
        self.lengths = np.array([len(sequence) for sequence in sequences])
        self.tokens = _pad(sequences)
        passes, self._pass = _maximal(_pad(sequences, -1))
        self._table = model.along(torch.from_numpy(self.tokens[passes]))  # [passes, T + 1, V]

    def rows(self, run: np.ndarray, place: np.ndarray) -> Tensor:
        """Return ln P(next token) after the first `place` tokens of some runs, (R') and (R') to (R', V)."""
        run, place = (torch.from_numpy(index).to(self._table.device) for index in (self._pass[run], place))
        return self._table[run, place]

    def last(self) -> Tensor:
        """Return ln P(next token) behind each whole run, (R, V)."""
        return self.rows(np.arange(len(self.lengths)), self.lengths)

    def passes(self, starts: np.ndarray, runs: np.ndarray | None = None) -> Tensor:
        """Return ln P(t_start+1..t_k | t_1..t_start) for k = 0 .. T (0 up to the start), (R,) to (R, T + 1)."""
        runs = np.arange(len(self.lengths)) if runs is None else runs
        tokens = self.tokens[runs]
        place = np.arange(tokens.shape[1])
        run, place, token = (
            torch.from_numpy(np.ascontiguousarray(index)).to(self._table.device)
            for index in np.broadcast_arrays(self._pass[runs][:, None], place, tokens)
        )
        chosen = self._table[run, place, token]
        before_start = torch.from_numpy(np.arange(tokens.shape[1]) < starts[:, None]).to(chosen.device)
        return torch.nn.functional.pad(chosen.masked_fill(before_start, 0.0).cumsum(1), (1, 0))


def _maximal(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows (R, T), padded with -1, that begin no other row; and for each row one of them that it begins."""
    order = np.lexsort(tokens.T[::-1]) if tokens.shape[1] else np.arange(len(tokens))
    ordered = tokens[order]
    # In lexicographic order a row's extensions follow it at once.
    begins_next = ((ordered[:-1] == ordered[1:]) | (ordered[:-1] < 0)).all(1)
    last = np.append(~begins_next, True)
    group = np.append(0, last.cumsum()[:-1])
    belongs = np.empty(len(tokens), np.int64)
    belongs[order] = group
    return order[last], belongs


def _pad(sequences: Sequence[Sequence[int]], value: int = 0) -> np.ndarray:
    """Stack sequences of different lengths, (R, longest) int64."""
    padded = np.full((len(sequences), max(map(len, sequences), default=0)), value, np.int64)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    return padded


def _log_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Return ln sum exp of the values of each group 0 .. count - 1, (count,); group -1 is dropped."""
    index, kept = groups[groups >= 0], values[groups >= 0]
    top = values.new_full((count,), -math.inf).scatter_reduce(0, index, kept, "amax")
    top = top.masked_fill(top == -math.inf, 0.0)
    return values.new_zeros(count).scatter_add(0, index, (kept - top[index]).exp()).log() + top
