"""Phrases and their phonemes: one to four words that follow one another in a text, with espeak-ng as the phonetizer.

A fifth of the rare words is set aside: every phrase of test has one of them, no phrase of the other splits does.

Columns: phrase (`<split>/<number>`), split, text, phonemes (with `|` between words).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet
from components.data.phonetizer import Phonetizer
from components.errors import TesseraError

FILE = "phrases.parquet"
SCHEMA = {"phrase": pl.String, "split": pl.String, "text": pl.String, "phonemes": pl.List(pl.String)}
_PHRASES = {"train": 12_000, "dev": 300, "test": 1_000}
_MOST_WORDS, _MOST_CHARACTERS = 4, 24
_RARE, _SHARE = 4, 5
_SEED = 0x62
_ATTEMPTS = 2_000
_WORD = re.compile(r"a|i|(?=.*[aeiouy])[a-z]{2,}")


class PhraseError(TesseraError):
    """A text is too short for so many phrases."""


def from_texts(paths: Mapping[str, Path], directory: Path) -> None:
    """Make the data set from the words of texts in which words and punctuation stand between blanks.

    Raises:
        PhraseError: The texts have too few phrases.
        EspeakError: The phonetizer cannot be used.
    """
    words = [word.lower() for name in sorted(paths) for word in paths[name].read_text(encoding="utf-8").split()]
    parquet.write(phrases(words, _PHRASES), directory / FILE)


def held_out_words(words: Sequence[str], seed: int = _SEED) -> set[str]:
    """Return a fifth of the different words that occur at most four times, drawn at random."""
    counts = Counter(word for word in words if _WORD.fullmatch(word))
    rare = sorted(word for word, count in counts.items() if count <= _RARE)
    chosen = np.random.default_rng([seed, 0]).permutation(len(rare))[: len(rare) // _SHARE]
    return {rare[place] for place in chosen}


def phrases(words: Sequence[str], counts: Mapping[str, int], seed: int = _SEED) -> pl.DataFrame:
    """Return different phrases with their phonemes, as rows of SCHEMA.

    Args:
        words: Words of a text in order.
        counts: Phrases of train, dev and test.
        seed: Equal seeds give equal rows.

    Raises:
        PhraseError: The text has not as many.
    """
    apart = held_out_words(words, seed)
    whole = np.array([_WORD.fullmatch(word) is not None for word in words])
    rare = np.array([word in apart for word in words])
    known: set[str] = set()
    rows = []
    with Phonetizer() as phonetizer:
        for place, (split, count) in enumerate(counts.items()):
            draws = np.random.default_rng([seed, 1 + place])
            for number in range(count):
                text = _drawn(words, whole, rare, split == "test", known, draws)
                known.add(text)
                rows.append((f"{split}/{number:05}", split, text, phonetizer.phonemes(text)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _drawn(
    words: Sequence[str],
    whole: np.ndarray,
    rare: np.ndarray,
    for_test: bool,
    known: set[str],
    draws: np.random.Generator,
) -> str:
    # A phrase of test is drawn around one of the words that were set aside.
    centres = np.flatnonzero(rare & whole) if for_test else None
    for _ in range(_ATTEMPTS):
        length = int(draws.integers(1, _MOST_WORDS + 1))
        if centres is not None:
            if not len(centres):
                break
            start = int(centres[draws.integers(len(centres))]) - int(draws.integers(length))
        else:
            start = int(draws.integers(len(words)))
        span = slice(max(0, start), start + length)
        text = " ".join(words[span])
        fits = start >= 0 and start + length <= len(words) and len(text) <= _MOST_CHARACTERS and whole[span].all()
        if fits and text not in known and (for_test or not rare[span].any()):
            return text
    raise PhraseError(f"the text of {len(words)} words gives no new phrase in {_ATTEMPTS} draws; give a longer one.")
