"""Synthetic sentences: one to eight words of a 300-word vocabulary, spoken by many voices of espeak-ng.

A voice is an accent of English with a variant of the synthesiser and a pitch of its own; its rate varies between
sentences. Word order follows the trigrams of a text. Voices of `held_out` occur in no other split, nor do their
variants. No sentence of four words or more of dev, test or held_out is one of train.

Every sentence can be said by a recogniser of 25 frames a second (connectionist temporal classification needs a frame
per character, and one more between equal ones); the few that cannot are drawn again.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet
from components.data.espeak import Spoken, Synthesiser
from components.data.sentences import Trigrams, vocabulary
from components.data.speech import FILE, SAMPLE_RATE, SCHEMA, SpeechError

ACCENTS = (
    "en",
    "en-029",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-gb-x-rp",
    "en-us",
    "en-us-nyc",
)
_VARIANTS = ("m1", "m3", "m4", "m8", "f1", "f2", "f4", "f5")
_HELD_OUT = ("en-029+m7", "en+f3", "en-gb-scotland+m2", "en-us+linda")
_WORDS = 300
_UTTERANCES = {"train": 12_000, "dev": 200, "test": 400, "held_out": 400}
_LONGEST = 8
_DISTINCT_FROM = 4
_RATES = (140, 200)
_PITCHES = (30, 70)
_FRAME = SAMPLE_RATE // 25
_ATTEMPTS = 50
_SEED = 0xE5


@dataclass(frozen=True)
class Voice:
    """A voice: its name for espeak, and its pitch, 0 to 100."""

    name: str
    pitch: int


def voices(names: Sequence[str]) -> list[Voice]:
    """Return voices with pitches that are spread evenly over the range, neighbours far apart."""
    # A step of the golden ratio through the range visits all of it without order.
    span = _PITCHES[1] - _PITCHES[0] + 1
    return [Voice(name, _PITCHES[0] + int(span * (0.6180339887 * place % 1))) for place, name in enumerate(names)]


SEEN = voices([f"{accent}+{variant}" for accent in ACCENTS for variant in _VARIANTS])
HELD_OUT = voices(_HELD_OUT)


def from_texts(paths: Mapping[str, Path], directory: Path) -> None:
    """Make the data set from the words of texts in which words and punctuation stand between blanks.

    Columns: those of `components.data.speech`; `speaker` is the voice, `sources` is empty.

    Raises:
        SentencesError: The texts have too few different words.
        EspeakError: The synthesiser cannot be used.
    """
    words = [word.lower() for name in sorted(paths) for word in paths[name].read_text(encoding="utf-8").split()]
    parquet.write(spoken_sentences(words, _UTTERANCES), directory / FILE)


def spoken_sentences(
    words: Sequence[str],
    utterances: Mapping[str, int],
    *,
    vocabulary_size: int = _WORDS,
    seen: Sequence[Voice] = SEEN,
    held_out: Sequence[Voice] = HELD_OUT,
    seed: int = _SEED,
) -> pl.DataFrame:
    """Return spoken sentences as rows of `components.data.speech.SCHEMA`, ordered by split and number.

    Args:
        words: Words of a text in order.
        utterances: Number of utterances of each split, train first; voices take turns.
        vocabulary_size: Words that sentences are made of.
        seen: Voices of train, dev and test.
        held_out: Voices of held_out.
        seed: Equal seeds give equal rows.

    Raises:
        SpeechError: A split is unknown, or a sentence cannot be said slowly enough.
    """
    if strangers := set(utterances) - set(_UTTERANCES):
        raise SpeechError(f"unknown splits {sorted(strangers)}; expected some of {', '.join(_UTTERANCES)}.")
    order = Trigrams(words, vocabulary(words, vocabulary_size))
    taught: set[str] = set()
    rows = []
    for place, split in enumerate(_UTTERANCES):
        own = held_out if split == "held_out" else seen
        count = utterances.get(split, 0)
        for turn, voice in enumerate(own):
            draws = np.random.default_rng([seed, place, turn])
            # A library of its own for each voice, so that voices do not depend on one another.
            with Synthesiser() as synthesiser:
                for number in range(turn, count, len(own)):
                    text, spoken = _drawn(order, voice, synthesiser, draws, taught if split != "train" else set())
                    rows.append(_row(split, number, voice, text, spoken))
        if split == "train":
            taught = {row[3] for row in rows}
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return table.sort(pl.col("split").replace_strict({name: at for at, name in enumerate(_UTTERANCES)}), "utterance")


def _drawn(
    order: Trigrams, voice: Voice, synthesiser: Synthesiser, draws: np.random.Generator, taken: set[str]
) -> tuple[str, Spoken]:
    for _ in range(_ATTEMPTS):
        length = int(draws.integers(1, _LONGEST + 1))
        text = order.sentence(length, draws)
        rate = int(draws.integers(_RATES[0], _RATES[1] + 1))
        if length >= _DISTINCT_FROM and text in taken:
            continue
        spoken = synthesiser.say(text, voice.name, rate, voice.pitch)
        if readable(text, len(spoken.samples)):
            return text, spoken
    raise SpeechError(f"voice {voice.name!r} said no sentence of {_ATTEMPTS} that 25 frames a second can follow.")


def readable(text: str, samples: int) -> bool:
    """Tell whether 25 frames a second suffice for a text: a frame per character, and a blank between equal ones."""
    equal = sum(one == other for one, other in itertools.pairwise(text))
    return samples // _FRAME >= len(text) + equal


def _row(split: str, number: int, voice: Voice, text: str, spoken: Spoken) -> tuple:
    words = [{"word": word, "start": start, "end": end} for word, start, end in spoken.words]
    phonemes = [{"symbol": symbol, "start": start, "end": end} for symbol, start, end in spoken.phonemes]
    return f"{split}/{number:05}", split, voice.name, text, spoken.samples, words, phonemes, []
