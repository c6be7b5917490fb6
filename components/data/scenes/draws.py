"""Random integers that are a function of (seed, split, scene, purpose) and of nothing else.

A generator with a state would tie a scene to those drawn before it. Here every scene has a key, and a draw is a hash
of the key and a counter, in integers of 64 bits: the same on every machine and in every release of NumPy, for one scene
or for a million, in any order.

Letters: `B` scenes, `N` values of a scene.

Source: Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators (the finaliser of SplitMix64).
"""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np


class Purpose(IntEnum):
    """What is drawn: each purpose has random numbers of its own, so that none depends on how many another took."""

    COUNT = auto()
    GROUND = auto()
    TEXTURE = auto()
    KINDS = auto()
    COLOURS = auto()
    UNSEEN = auto()
    UNSEEN_PLACE = auto()
    SIZE = auto()
    FILL = auto()
    MARK_SHAPE = auto()
    MARK_COLOUR = auto()
    SIGN = auto()
    GLYPHS = auto()
    SIGN_PLACE = auto()
    PLACE = auto()
    CELL = auto()
    QUESTION = auto()
    ANSWER = auto()
    OPTION = auto()
    COIN = auto()
    SUBJECT = auto()
    CHANGE = auto()
    VALUE = auto()
    TYPES = auto()
    PARAPHRASE = auto()


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WIDEST = 1 << 16


def _mixed(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Draws:
    """Random integers for each scene of a batch."""

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = keys

    @classmethod
    def of(cls, seed: int, split: int, scenes: np.ndarray) -> Draws:
        """Return the draws of the scenes (B,) of a split."""
        keys = np.zeros(len(scenes), np.uint64)
        for part in (np.full(len(scenes), seed), np.full(len(scenes), split), scenes):
            keys = _mixed((keys ^ part.astype(np.uint64)) + _GOLDEN)
        return cls(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def at(self, rows: np.ndarray) -> Draws:
        """Return the draws of some of the scenes."""
        return Draws(self._keys[rows])

    def bits(self, purpose: int, attempt: int, count: int) -> np.ndarray:
        """Return 64 random bits, uint64 (B, N); other purposes and attempts are independent, N only adds columns."""
        start = np.uint64((purpose << 40) + attempt * _WIDEST)
        counters = start + np.arange(1, count + 1, dtype=np.uint64)
        return _mixed(self._keys[:, None] + _mixed(counters * _GOLDEN)[None, :])

    def integers(self, high: int | np.ndarray, purpose: int, count: int = 1, attempt: int = 0) -> np.ndarray:
        """Return integers in [0, high), int64 (B, N); `high` may be an array that broadcasts to (B, N)."""
        wide = self.bits(purpose, attempt, count) >> np.uint64(32)
        return ((wide * np.asarray(high).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)

    def choice(self, options: np.ndarray, purpose: int, attempt: int = 0) -> np.ndarray:
        """Return the index of one of the options (bool, (B, N)) of each scene, each with the same probability, (B,).

        A scene without options gets 0.
        """
        bits = self.bits(purpose, attempt, options.shape[1]) | np.uint64(1)
        return np.where(options, bits, np.uint64(0)).argmax(1)

    def order(self, count: int, purpose: int, attempt: int = 0) -> np.ndarray:
        """Return a random order of 0 .. N - 1 for each scene, (B, N)."""
        return self.bits(purpose, attempt, count).argsort(1, kind="stable")
