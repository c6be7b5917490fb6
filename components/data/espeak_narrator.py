"""Short sentences of one voice of espeak-ng, at one rate and pitch: text of a small vocabulary to units of speech.

Sentences are drawn as those of `components.data.espeak_sentences`, with draws of their own; none occurs twice, so that
no test sentence is one of train. Longer ones than 1.5 s are drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from components.data import parquet
from components.data.espeak import Synthesiser
from components.data.sentences import Trigrams, vocabulary
from components.data.speech import FILE, SAMPLE_RATE, SCHEMA, SpeechError

VOICE = "en-us+m3"
_RATE, _PITCH = 175, 50
_WORDS, _MOST_WORDS = 300, 5
_LONGEST = SAMPLE_RATE * 3 // 2
_UTTERANCES = {"train": 4_000, "test": 400}
_ATTEMPTS = 200
_SEED = 0xDA0


def from_texts(paths: Mapping[str, Path], directory: Path) -> None:
    """Make the data set from the words of texts in which words and punctuation stand between blanks.

    Columns: those of `components.data.speech`; `sources` is empty.

    Raises:
        SentencesError: The texts have too few different words.
        EspeakError: The synthesiser cannot be used.
    """
    words = [word.lower() for name in sorted(paths) for word in paths[name].read_text(encoding="utf-8").split()]
    parquet.write(narrated(words, _UTTERANCES), directory / FILE)


def narrated(
    words: Sequence[str], utterances: Mapping[str, int], *, vocabulary_size: int = _WORDS, seed: int = _SEED
) -> pl.DataFrame:
    """Return spoken sentences as rows of `components.data.speech.SCHEMA`, all of them different.

    Args:
        words: Words of a text in order.
        utterances: Number of utterances of each split.
        vocabulary_size: Words that sentences are made of.
        seed: Equal seeds give equal rows.

    Raises:
        SpeechError: So many different short sentences are not found.
    """
    order, said, rows = Trigrams(words, vocabulary(words, vocabulary_size)), set(), []
    for place, (split, count) in enumerate(utterances.items()):
        draws = np.random.default_rng([seed, place])
        with Synthesiser() as synthesiser:
            for number in range(count):
                for _ in range(_ATTEMPTS):
                    text = order.sentence(int(draws.integers(1, _MOST_WORDS + 1)), draws)
                    if text in said:
                        continue
                    spoken = synthesiser.say(text, VOICE, _RATE, _PITCH)
                    if len(spoken.samples) <= _LONGEST:
                        break
                else:
                    raise SpeechError(f"{_ATTEMPTS} draws gave no new sentence of at most 1.5 s; ask for fewer.")
                said.add(text)
                times = [{"word": word, "start": start, "end": end} for word, start, end in spoken.words]
                phones = [{"symbol": symbol, "start": start, "end": end} for symbol, start, end in spoken.phonemes]
                name = f"{split}/{number:05}"
                rows.append((name, split, VOICE, text, spoken.samples, times, phones, []))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
