"""Markov chains over characters: the source on which every probability of a text is known.

Letters: A alphabet size, k order, S = A^k states, B strings, N characters. A state is the string of the last k
characters; its index reads that string as a number in base A, first character most significant.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from components.errors import TesseraError
from components.metrics.tables import write_parquet

CHAINS_FILE = "chains.parquet"
_CHAIN_SCHEMA = {
    "chain": pl.Int64,
    "order": pl.Int64,
    "state": pl.String,
    "next": pl.String,
    "probability": pl.Float64,
}


class ChainError(TesseraError):
    """A chain, or a file of chains, that defines no stationary source."""


@dataclass(frozen=True, eq=False)
class Chain:
    """A stationary order-k chain with full support: `P(x_n | x_1..n-1) = P(x_n | x_n-k..n-1)`.

    Attributes:
        alphabet: The A characters in ascending order.
        order: k, at least 1.
        transitions: P(next | state), (S, A) probabilities; every entry is positive, every row sums to 1.

    Raises:
        ChainError: Shape, order of the alphabet, positivity or a row's sum is wrong.
    """

    alphabet: str
    order: int
    transitions: np.ndarray

    def __post_init__(self) -> None:
        size = len(self.alphabet)
        if self.order < 1 or list(self.alphabet) != sorted(set(self.alphabet)):
            raise ChainError(
                f"Chain(order={self.order}, alphabet={self.alphabet!r}): expected an order of at least 1 and distinct "
                "characters in ascending order."
            )
        expected = (size**self.order, size)
        if self.transitions.shape != expected:
            raise ChainError(f"Chain.transitions has shape {self.transitions.shape}; expected {expected} (S, A).")
        if (self.transitions <= 0).any() or not np.allclose(self.transitions.sum(1), 1, rtol=0, atol=1e-12):
            raise ChainError("Chain.transitions: every probability must be positive and every row must sum to 1.")

    @cached_property
    def states(self) -> tuple[str, ...]:
        """The S states in the order of their indices."""
        return tuple("".join(letters) for letters in itertools.product(self.alphabet, repeat=self.order))

    @cached_property
    def stationary(self) -> np.ndarray:
        """Probability of each state in a long text, (S,): `pi = pi T`, the start of every text."""
        count, size = self.transitions.shape
        matrix = np.zeros((count, count))
        for letter in range(size):
            matrix[np.arange(count), self._successor(np.arange(count), letter)] += self.transitions[:, letter]
        system = np.vstack([matrix.T - np.eye(count), np.ones(count)])
        pi = np.linalg.lstsq(system, np.append(np.zeros(count), 1.0), rcond=None)[0]
        return pi / pi.sum()

    @cached_property
    def character_frequencies(self) -> np.ndarray:
        """Probability of each character regardless of the text before it, (A,)."""
        return self.stationary @ self.transitions

    def entropy_rate(self) -> float:
        """Return the conditional entropy of the next character given the state, in nats per character."""
        return float(-(self.stationary[:, None] * self.transitions * np.log(self.transitions)).sum())

    def sample(self, count: int, length: int, generator: np.random.Generator) -> np.ndarray:
        """Draw independent stationary texts.

        Args:
            count: B.
            length: N, at least k.
            generator: Source of randomness; equal states give equal texts.

        Returns:
            Character indices, (B, N) uint8.
        """
        state = generator.choice(len(self.states), size=count, p=self.stationary)
        return self._run(state, self.transitions, length, generator, self._successor)

    def sample_ending_in(self, state: str, count: int, length: int, generator: np.random.Generator) -> np.ndarray:
        """Draw independent stationary texts given that their last k characters are `state`, (B, N) uint8.

        Runs the reversed chain, whose transitions follow from Bayes' rule:
        `P(c | s) = pi(c s_1..k-1) P(s_k | c s_1..k-1) / pi(s)`. Nothing is rejected.
        """
        size, count_states = len(self.alphabet), len(self.states)
        indices = np.arange(count_states)
        reverse = np.empty((count_states, size))
        for letter in range(size):
            before = self._predecessor(indices, letter)
            reverse[:, letter] = self.stationary[before] * self.transitions[before, indices % size]
        reverse /= reverse.sum(1, keepdims=True)
        start = np.full(count, self.states.index(state))
        mirrored = self._run(start, reverse, length, generator, self._predecessor)
        # The run writes its first state forwards and goes on towards the past.
        return np.concatenate([mirrored[:, : self.order - 1 : -1], mirrored[:, : self.order]], axis=1)

    def state_indices(self, codes: np.ndarray) -> np.ndarray:
        """Return the index of the state at the end of each text, (B, N) character indices with N >= k to (B,)."""
        weights = len(self.alphabet) ** np.arange(self.order - 1, -1, -1)
        return codes[:, -self.order :].astype(np.int64) @ weights

    def log_probability(self, codes: np.ndarray) -> np.ndarray:
        """Return ln P(text begins with the string) for strings of any length, (B, N) to (B,) nats."""
        count, length = codes.shape
        head = min(length, self.order)
        # A string shorter than the order is the union of the states that begin with it.
        block = len(self.alphabet) ** (self.order - head)
        weights = block * len(self.alphabet) ** np.arange(head - 1, -1, -1)
        state = codes[:, :head].astype(np.int64) @ weights if head else np.zeros(count, np.int64)
        total = np.log(self.stationary.reshape(-1, block).sum(1)[state // block])
        for position in range(self.order, length):
            letter = codes[:, position].astype(np.int64)
            total = total + np.log(self.transitions[state, letter])
            state = self._successor(state, letter)
        return total

    def texts(self, codes: np.ndarray) -> list[str]:
        """Spell rows of character indices, (B, N)."""
        points = np.array([ord(character) for character in self.alphabet], np.uint32)[codes]
        return points.view(f"<U{codes.shape[1]}")[:, 0].tolist()

    def _successor(self, state: np.ndarray, letter) -> np.ndarray:
        return (state * len(self.alphabet) + letter) % len(self.states)

    def _predecessor(self, state: np.ndarray, letter) -> np.ndarray:
        size = len(self.alphabet)
        return state // size + letter * size ** (self.order - 1)

    def _run(self, state: np.ndarray, transitions: np.ndarray, length: int, generator, move) -> np.ndarray:
        if length < self.order:
            raise ChainError(f"A text of {length} characters holds no state of an order-{self.order} chain.")
        size = len(self.alphabet)
        codes = np.empty((len(state), length), np.uint8)
        for position in range(self.order):
            codes[:, position] = state // size ** (self.order - 1 - position) % size
        bounds = np.cumsum(transitions, axis=1)[:, :-1]
        for position in range(self.order, length):
            draw = generator.random(len(state))
            letter = (draw[:, None] >= bounds[state]).sum(1)
            codes[:, position] = letter
            state = move(state, letter)
        return codes


def random_binary_chain(seed: int, order: int, alphabet: str = "AB", low: float = 0.1, high: float = 0.9) -> Chain:
    """Draw a binary chain: in every state the first character follows with a probability from U(low, high)."""
    if len(alphabet) != 2 or not 0 < low <= high < 1:
        raise ChainError(
            f"random_binary_chain(alphabet={alphabet!r}, low={low}, high={high}): expected two characters and "
            "0 < low <= high < 1."
        )
    first = np.random.default_rng([seed, 0xC4A1]).uniform(low, high, size=2**order)
    return Chain(alphabet, order, np.stack([first, 1 - first], axis=1))


def generate(
    directory: Path, *, chains: int = 5, order: int = 3, alphabet: str = "AB", low: float = 0.1, high: float = 0.9
) -> None:
    """Write the data set `markov`: one random chain per seed 0 .. chains - 1.

    Texts are not stored: a stage draws them from (chain, seed).

    Args:
        directory: Existing directory; `chains.parquet` is written into it, one row per (chain, state, next).
        chains: Number of chains.
        order: Order k of every chain.
        alphabet: Two characters.
        low: Least probability of the first character.
        high: Greatest probability of the first character.
    """
    rows = []
    for index in range(chains):
        chain = random_binary_chain(index, order, alphabet, low, high)
        for state, probabilities in zip(chain.states, chain.transitions, strict=True):
            rows += [(index, order, state, *pair) for pair in zip(alphabet, probabilities.tolist(), strict=True)]
    write_parquet(pl.DataFrame(rows, schema=_CHAIN_SCHEMA, orient="row"), directory / CHAINS_FILE)


def read_chain(directory: Path, index: int) -> Chain:
    """Read one chain of the data set `markov`.

    Raises:
        ChainError: The file holds no chain of that index.
    """
    frame = pl.read_parquet(directory / CHAINS_FILE)
    rows = frame.filter(pl.col("chain") == index).sort("state", "next")
    if rows.is_empty():
        held = sorted(frame["chain"].unique())
        raise ChainError(
            f"{directory / CHAINS_FILE} has no chain {index} (it has {held}). Every seed needs its own source: "
            "generate the data set with more chains, or use a smaller seed."
        )
    alphabet = "".join(sorted(rows["next"].unique()))
    return Chain(alphabet, rows["order"][0], rows["probability"].to_numpy().reshape(-1, len(alphabet)))
