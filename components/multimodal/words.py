"""A vocabulary of words: every word, number and punctuation mark of captions, questions and answers is one token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.data.scenes.captions import words
from components.errors import TesseraError, did_you_mean
from components.training import atomic

QUESTION, CAPTION, END = "<question>", "<caption>", "<end>"
"""What stands before a question, before a caption, and behind a caption."""
SPECIALS = (QUESTION, CAPTION, END)
_FILE = "words.json"


class UnknownWord(TesseraError):
    """A text has a word that the vocabulary has not."""


class WordVocabulary:
    """Texts as word ids.

    Args:
        entries: Every token in the order of its id, without SPECIALS, which follow.

    Attributes:
        tokens: Every token by its id.
        question, caption, end: Ids of SPECIALS.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.entries = list(entries)
        self.tokens = (*self.entries, *SPECIALS)
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self._ids) < len(self.tokens):
            raise UnknownWord("the vocabulary holds a word twice; expected different words.")
        self.question, self.caption, self.end = (self._ids[token] for token in SPECIALS)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text's words.

        Raises:
            UnknownWord: A word is not in the vocabulary.
        """
        found = words(text)
        for word in found:
            if word not in self._ids:
                raise UnknownWord(f"{word!r} (in {text!r}) is not in the vocabulary.{did_you_mean(word, self.entries)}")
        return [self._ids[word] for word in found]

    def table(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of many texts, int16 (texts, longest), zeros behind the shorter ones, and their lengths.

        Each text is split once however often it occurs.

        Raises:
            UnknownWord: A word is not in the vocabulary.
        """
        unique, place = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)
        rows = [self.encode(text) for text in unique.tolist()]
        lengths = np.array([len(row) for row in rows], np.int64)
        table = np.zeros((len(rows), max(lengths, default=0)), np.int16)
        table[np.arange(table.shape[1]) < lengths[:, None]] = [token for row in rows for token in row]
        return table[place], lengths[place]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the tokens of some ids with spaces between, commas and question marks joined to what they follow."""
        text = " ".join(self.tokens[index] for index in ids)
        return text.replace(" ,", ",").replace(" ?", "?")

    def save(self, directory: Path) -> None:
        """Write the words beside a model."""
        with atomic.replacing(directory / _FILE) as temporary:
            Path(temporary).write_text(json.dumps(self.entries) + "\n")

    @classmethod
    def load(cls, directory: Path) -> WordVocabulary:
        """Read what `save` wrote.

        Raises:
            UnknownWord: There are no words beside this model.
        """
        path = directory / _FILE
        try:
            return cls(json.loads(path.read_text()))
        except (OSError, json.JSONDecodeError) as error:
            raise UnknownWord(f"{path}: {error}. Expected the words of a model of words; rebuild it.") from error
