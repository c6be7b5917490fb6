"""Which token sequences a tokenizer can produce.

A sequence is valid iff `encode(decode(t_1..t_i)) == t_1..t_i`. Under the token distribution of any text source an
invalid sequence has probability zero.

Letters: V tokens, B sequences, T tokens of a sequence, S states met so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

_UNKNOWN, _INVALID = -2, -1


class TextTokenizer(Protocol):
    """A deterministic tokenizer of symbols (characters, or bytes as latin-1) without special tokens.

    Attributes:
        vocabulary: Token strings by id.
    """

    vocabulary: tuple[str, ...]

    def encode(self, text: str) -> list[int]:
        """Return the one encoding of a text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens spell."""

    def certain_tokens(self, text: str) -> int:
        """Return a number of leading tokens of `encode(text)` that no continuation of the text changes."""

    def validity_memory(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the end of a valid sequence that decides which tokens may follow it."""


def is_valid(tokenizer: TextTokenizer, tokens: Sequence[int]) -> bool:
    """Say whether a sequence is the encoding of the text that it spells: the definition, by re-encoding."""
    return tokenizer.encode(tokenizer.decode(tokens)) == list(tokens)


class Validity:
    """The valid sequences of a tokenizer, as an automaton that grows with what is asked of it.

    A state is the end of a sequence that decides what may follow: the last token for BPE, the tokens that begin within
    the reach of the longest token for maximum prefix encoding, or the whole sequence. State 0 is the empty sequence,
    so its row marks the reachable tokens, those with `encode(decode(t)) == [t]`.

    Args:
        tokenizer: The tokenizer.
        memory: The end that decides; by default the tokenizer's own rule. The identity re-encodes everything.
    """

    def __init__(
        self, tokenizer: TextTokenizer, memory: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._memory = memory or tokenizer.validity_memory
        self._ends: list[tuple[int, ...]] = []
        self._states: dict[tuple[int, ...], int] = {}
        self._next = np.empty((0, len(tokenizer.vocabulary)), np.int32)  # [S, V]
        self._endless: dict[int, bool] = {}
        self._lasting: dict[int, np.ndarray] = {}
        self._state(())

    def step(self, state: int, token: int) -> int:
        """Return the state behind one more token, -1 if the sequence becomes invalid."""
        known = self._next[state, token]
        if known == _UNKNOWN:
            sequence = (*self._ends[state], token)
            known = self._state(self._memory(sequence)) if is_valid(self.tokenizer, sequence) else _INVALID
            self._next[state, token] = known
        return int(known)

    def state(self, tokens: Sequence[int]) -> int:
        """Return the state behind a sequence, -1 for an invalid one."""
        state = 0
        for token in tokens:
            if (state := self.step(state, token)) == _INVALID:
                break
        return state

    def states(self, tokens: np.ndarray) -> np.ndarray:
        """Return the states along many sequences.

        Args:
            tokens: Token ids, (B, T).

        Returns:
            State behind the first 0 .. T tokens, (B, T + 1); -1 from where a sequence is invalid.
        """
        count, length = tokens.shape
        states = np.zeros((count, length + 1), np.int64)
        for index in range(length):
            before, token = states[:, index], tokens[:, index]
            going = before >= 0
            after = np.full(count, _INVALID)
            after[going] = self._next[before[going], token[going]]
            for state, wanted in set(zip(before[after == _UNKNOWN], token[after == _UNKNOWN], strict=True)):
                after[(before == state) & (token == wanted)] = self.step(int(state), int(wanted))
            states[:, index + 1] = after
        return states

    def continuations(self, state: int) -> np.ndarray:
        """Return which tokens keep a sequence valid, (V,) booleans."""
        return np.array([self.step(state, token) >= 0 for token in range(len(self.tokenizer.vocabulary))])

    def lasting(self, state: int) -> np.ndarray:
        """Return which tokens keep a sequence valid in a text that never ends, (V,) booleans.

        Some valid sequences occur only at the end of a text: with V = {A, B, AA, AB} nothing can follow the token A.
        """
        if state not in self._lasting:
            after = [self.step(state, token) for token in range(len(self.tokenizer.vocabulary))]
            self._lasting[state] = np.array([target >= 0 and self._is_endless(target) for target in after])
        return self._lasting[state]

    def lasting_rows(self, states: np.ndarray) -> np.ndarray:
        """Return `lasting` of many states, any shape to (..., V); all true where a state is -1."""
        distinct, places = np.unique(states, return_inverse=True)
        everything = np.ones(len(self.tokenizer.vocabulary), bool)
        rows = np.stack([self.lasting(int(state)) if state >= 0 else everything for state in distinct])
        return rows[places.reshape(states.shape)]

    def _state(self, end: tuple[int, ...]) -> int:
        if end not in self._states:
            self._states[end] = len(self._ends)
            self._ends.append(end)
            if len(self._ends) > len(self._next):
                more = np.full((max(16, len(self._next)), self._next.shape[1]), _UNKNOWN, np.int32)
                self._next = np.concatenate([self._next, more])
        return self._states[end]

    def _is_endless(self, state: int) -> bool:
        # Depth first: a way back onto the current path is a cycle, hence an endless text from everywhere on the path.
        path = [(state, iter(range(len(self.tokenizer.vocabulary))))]
        open_states = {state}
        while path and state not in self._endless:
            current, tokens = path[-1]
            for token in tokens:
                target = self.step(current, token)
                if target in open_states or self._endless.get(target, False):
                    self._endless.update(dict.fromkeys(open_states, True))
                    break
                if target >= 0 and target not in self._endless:
                    path.append((target, iter(range(len(self.tokenizer.vocabulary)))))
                    open_states.add(target)
                    break
            else:
                self._endless[current] = False
                open_states.remove(current)
                path.pop()
        return self._endless[state]
