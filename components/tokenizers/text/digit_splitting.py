"""A tokenizer of larger pieces whose numbers are broken up into single digits, as T5's is for the number token loss.

Letters: N texts, T tokens of the longest one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from components.errors import TesseraError
from components.tokenizers.text.numeric import DIGITS, NOTHING, Encoded, NumberTokens

T5_END = "</s>"
_SPECIAL = re.compile("<.+>")


class UnsplittableNumber(TesseraError):
    """A tokenizer lacks the single characters that its pieces with digits should be broken into."""


def split_digits(piece: str) -> list[str]:
    """Break a piece that holds a digit into its characters ("▁42" into "▁", "4", "2"); leave every other one whole.

    Source: Zausinger et al. 2025, "Regress, Don't Guess", section 3: T5's merged number pieces are broken up.
    """
    return list(piece) if re.search("[0-9]", piece) else [piece]


class DigitSplittingTokenizer:
    """A Hugging Face tokenizer whose pieces with digits are replaced by their characters.

    The vocabulary stays what it was, so that a pretrained model's embeddings still fit; pieces such as "42" no longer
    occur.

    Args:
        tokenizer: A `tokenizers.Tokenizer`.
        end: Piece that ends a text.

    Attributes:
        vocabulary: Pieces by id.
        end_token: Id of the end piece.
        number_tokens: The ten single digits.

    Raises:
        UnsplittableNumber: A digit, the end piece or a character of a piece with digits is no piece itself.
    """

    def __init__(self, tokenizer, end: str = T5_END) -> None:
        self._tokenizer = tokenizer
        ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary = [""] * (max(ids.values()) + 1)
        for piece, token in ids.items():
            self.vocabulary[token] = piece
        self.end_token, *digits = self._ids_of([end, *DIGITS], ids, "the vocabulary")
        self.number_tokens = NumberTokens(tuple(digits), tuple(map(float, DIGITS)))
        self._parts = {
            token: self._ids_of(split_digits(piece), ids, f"the piece {piece!r}")
            for piece, token in ids.items()
            if not _SPECIAL.fullmatch(piece)
        }

    def _ids_of(self, pieces: Iterable[str], ids: dict[str, int], where: str) -> list[int]:
        if missing := [piece for piece in pieces if piece not in ids]:
            raise UnsplittableNumber(
                f"{where} needs the pieces {missing}, which the tokenizer does not have; expected all ten digits, an "
                "end piece and the characters of every piece with a digit. Train the tokenizer with them."
            )
        return [ids[piece] for piece in pieces]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text's pieces, those with digits broken up, without special tokens around them."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [part for token in tokens for part in self._parts.get(token, (token,))]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that the tokens spell before the first end token."""
        tokens = list(tokens)
        return self._tokenizer.decode(tokens[: tokens.index(self.end_token)] if self.end_token in tokens else tokens)

    def encode_all(self, texts: Sequence[str]) -> Encoded:
        """Encode texts."""
        rows = [self.encode(text) for text in texts]
        lengths = np.array([len(row) for row in rows], np.int64)
        ids = np.full((len(rows), max(1, int(lengths.max(initial=0)))), NOTHING, np.int64)
        ids[np.arange(ids.shape[1]) < lengths[:, None]] = [token for row in rows for token in row]
        return Encoded(ids, lengths)

    def decode_all(self, ids: np.ndarray, values: np.ndarray | None = None) -> list[str]:
        """Return what each row of ids (N, T) spells before its first end token or NOTHING."""
        return [self.decode([token for token in row if token != NOTHING]) for row in np.asarray(ids).tolist()]

    def save(self, path: Path) -> None:
        """Write the tokenizer in the library's own JSON."""
        self._tokenizer.save(str(path))


def load(path: Path) -> DigitSplittingTokenizer:
    """Read a `tokenizer.json` of the Hugging Face Hub, such as T5's."""
    from tokenizers import Tokenizer

    return DigitSplittingTokenizer(Tokenizer.from_file(str(path)))
