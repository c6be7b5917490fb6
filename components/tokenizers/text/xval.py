"""xVal's spelling of numbers: every number is one token [NUM], and its value stands beside the token.

    "34 - (-57)?"  ->  [NUM] " " - " " ( [NUM] ) ?     with values     34 1 1 1 1 -57 1 1

Letters: N texts, T tokens of the longest one.

Source: Golkar et al. 2023, "xVal: A Continuous Number Encoding for Large Language Models", section 2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from components.tokenizers.text.numeric import (
    ALPHABET,
    END,
    NOTHING,
    CharacterTokenizer,
    Encoded,
    NumberTokens,
    UnknownCharacter,
)

# A minus directly before a digit is the number's sign; an operator has a space behind it.
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_PLACEHOLDER = "#"


class ValueTokenizer:
    """Characters, but one token for a whole number, whose value is kept beside the ids; an end token behind them.

    Attributes:
        vocabulary: Characters, then [NUM], then the end token.
        number_token: Id of [NUM].
        end_token: Id of the end token.
        number_tokens: [NUM] alone; its value stands beside it and not in the vocabulary.
    """

    def __init__(self, alphabet: str = ALPHABET) -> None:
        self._alphabet = alphabet
        self._characters = CharacterTokenizer(alphabet + _PLACEHOLDER)
        self.vocabulary = [*alphabet, "[NUM]", END]
        self.number_token, self.end_token = len(alphabet), len(alphabet) + 1
        self.number_tokens = NumberTokens((), ())

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without the end token; `encode_all` gives the values, too."""
        return self.encode_all([text]).ids[0].tolist()

    def encode_all(self, texts: Sequence[str]) -> Encoded:
        """Encode texts, without the end token.

        Raises:
            UnknownCharacter: A character is not in the alphabet.
        """
        column = pl.Series(list(texts), dtype=pl.String)
        if (strange := column.str.contains(_PLACEHOLDER, literal=True)).any():
            raise UnknownCharacter(
                f"{texts[strange.arg_max()]!r}: the character {_PLACEHOLDER!r} stands for numbers here and is no "
                "token; write the text without it."
            )
        encoded = self._characters.encode_all(column.str.replace_all(_NUMBER, _PLACEHOLDER).to_list())
        values = np.ones(encoded.ids.shape, np.float32)
        found = column.str.extract_all(_NUMBER).explode(empty_as_null=False).cast(pl.Float64)
        values[encoded.ids == self.number_token] = found.to_numpy()
        return Encoded(encoded.ids, encoded.lengths, values)

    def decode_all(self, ids: np.ndarray, values: np.ndarray | None = None) -> list[str]:
        """Return what each row spells before its first end token or NOTHING; numbers rounded to whole ones.

        Args:
            ids: (N, T).
            values: Value of each token, (N, T).
        """
        ids = np.asarray(ids, np.int64)
        open_ = np.logical_and.accumulate((ids != NOTHING) & (ids != self.end_token), axis=1)
        texts = self._characters.decode_all(np.where(open_, ids, NOTHING))
        if values is None:
            return texts
        numbers = (open_ & (ids == self.number_token)) * np.arange(1, ids.shape[1] + 1)
        for row in np.flatnonzero(numbers.any(1)):
            for value in values[row][numbers[row] > 0].tolist():
                texts[row] = texts[row].replace(_PLACEHOLDER, str(round(value)), 1)
        return texts

    def save(self, path: Path) -> None:
        """Write the alphabet as JSON."""
        path.write_text(json.dumps({"kind": "values", "alphabet": self._alphabet}) + "\n")


def build() -> ValueTokenizer:
    """Make the tokenizer of lower-case questions and answers."""
    return ValueTokenizer()


def load(path: Path) -> ValueTokenizer:
    """Read a tokenizer that `save` wrote."""
    return ValueTokenizer(json.loads(path.read_text())["alphabet"])
