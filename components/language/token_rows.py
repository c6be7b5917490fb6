"""What a token model says about the next token, as algorithms over bytes want it: in lexicographic order, truncated.

Letters: V tokens of the tokenizer, A symbols. A model may know more tokens than its tokenizer makes: an end of text,
and special tokens that stand for no bytes and are left out of every sum here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from components.errors import TesseraError
from components.language.byte_conversion import NextToken
from components.tokenizers.text.continuations import Continuations
from components.tokenizers.text.lexicographic import LexicographicVocabulary
from components.tokenizers.text.validity import TextTokenizer


class NothingFollows(TesseraError):
    """A model leaves no probability for any continuation of a text, or none for the text itself."""


@dataclass(frozen=True)
class TokenRow:
    """P(next token | context).

    Attributes:
        tokens: Probability of every token in lexicographic order, (V,) float64.
        end: Probability that the text ends here.
    """

    tokens: np.ndarray
    end: float


class ByteVocabulary:
    """A tokenizer with its vocabulary in lexicographic order; made once, used by every text.

    Args:
        tokenizer: Any deterministic tokenizer of symbols.

    Attributes:
        tokenizer: The tokenizer.
        words: Its vocabulary in lexicographic order.
        alphabet: The A symbols in ascending order; all 256 for a tokenizer of bytes.
        rank: Place of each token in lexicographic order, (V,) int64.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.words = LexicographicVocabulary(tokenizer.vocabulary)
        self.alphabet = self.words.alphabet
        self.rank = np.argsort(self.words.order)


class TokenRows:
    """Rows of a model behind token sequences of one text.

    Full truncation sets P(t | t_1..t_i) to 0 where the sequence turns invalid and renormalises what is left, the end of
    the text included. On encoded text this never increases the cross-entropy, and it makes the model a consistent
    process over bytes. Without it nothing is touched.

    Args:
        next_token: The model: ln P of at least V tokens behind a sequence; what is behind the V tokens is special.
        vocabulary: The tokenizer's.
        continuations: Its valid continuations for full truncation, None for none.
        end: Id of the model's end of text, None where it has none. Mass on tokens that only an end can follow is lost
            then, and callers normalise it away.
        context: Tokens in front of the text, such as special tokens and a suffix; no part of it.
    """

    def __init__(
        self,
        next_token: NextToken,
        vocabulary: ByteVocabulary,
        *,
        continuations: Continuations | None = None,
        end: int | None = None,
        context: Sequence[int] = (),
    ) -> None:
        self.vocabulary = vocabulary
        self._next_token = next_token
        self._continuations = continuations
        self._end = end
        self._context = list(context)

    def after(self, tokens: Sequence[int]) -> TokenRow:
        """Return P(next token | context, tokens): one call of the model. The sums over V are taken on the host.

        Raises:
            NothingFollows: Truncation leaves nothing.
        """
        logs = self._next_token([*self._context, *tokens]).cpu().numpy()
        words = self.vocabulary.words
        row = np.exp(logs[: len(words.vocabulary)], dtype=np.float64)
        end = float(np.exp(logs[self._end])) if self._end is not None else 0.0
        if self._continuations is not None:
            row *= self._continuations.after(tokens)
            total = row.sum() + end
            if not total > 0:
                raise NothingFollows(
                    f"The model puts no probability on a valid continuation of {words_of(words, tokens)!r} nor on its "
                    "end; expected some for every valid sequence."
                )
            row /= total
            end /= total
        return TokenRow(row[words.order], end)

    def possible(self, tokens: Sequence[int], low: int, high: int) -> bool:
        """Tell, without the model, whether any token of a lexicographic range may follow."""
        if self._continuations is None or low == high:
            return low < high
        order = self.vocabulary.words.order
        return bool(self._continuations.after(tokens)[order[low:high]].any())


def words_of(words: LexicographicVocabulary, tokens: Sequence[int]) -> str:
    """Return the text that tokens spell."""
    return "".join(words.vocabulary[token] for token in tokens)


class GrowingText:
    """The encoding of a text that grows symbol by symbol, split at its last sure boundary.

    A boundary is sure if no continuation of the text moves it; what stands behind it is encoded by itself, so a step
    costs the encoding of the last piece. The start of the text is always sure.

    Args:
        tokenizer: The tokenizer; `certain_tokens` says which boundary is sure.
        text: The text so far.

    Attributes:
        head: Tokens in front of the last sure boundary.
        tail: Tokens behind it; `encode(text)` is both.
        rest: Text behind it.
    """

    def __init__(self, tokenizer: TextTokenizer, text: str = "") -> None:
        self._tokenizer = tokenizer
        self.head: list[int] = []
        self.tail: tuple[int, ...] = ()
        self.rest = ""
        self._extend(text)

    def append(self, symbol: str) -> tuple[int, ...]:
        """Take one more symbol; return the tokens over which the boundary moved, the first ones of the new encoding."""
        return self._extend(symbol)

    def tokens(self) -> list[int]:
        """Return the encoding of the whole text."""
        return [*self.head, *self.tail]

    def _extend(self, text: str) -> tuple[int, ...]:
        self.rest += text
        tokens = self._tokenizer.encode(self.rest)
        certain = self._tokenizer.certain_tokens(self.rest) if self.rest else 0
        moved, self.tail = tuple(tokens[:certain]), tuple(tokens[certain:])
        self.head += moved
        self.rest = self.rest[sum(len(self._tokenizer.vocabulary[token]) for token in moved) :]
        return moved


def encodings(tokenizer: TextTokenizer, text: str, first: int = 0) -> Iterator[list[int]]:
    """Yield the encodings of the first `first`, first + 1, ..., N symbols of a text."""
    growing = GrowingText(tokenizer, text[:first])
    yield growing.tokens()
    for symbol in text[first:]:
        growing.append(symbol)
        yield growing.tokens()
