"""Prompting a token model with tokens: as the tokenizer makes them, or with the last one taken back.

Direct prompting conditions on encode(x). Token healing drops its last token, of bytes r, and lets the model choose
again among the tokens that begin with r. Their next-byte distributions are

    direct    P(c) = sum over t with first byte c of P(t | encode(x)),
    healing   P(c) prop. to  sum over t beginning with r c of P(t | encode(x) but the last)
                             + P(r | encode(x) but the last) P(c | encode(x)) of direct prompting,

and greedy decoding takes the likeliest token each time, the first of a healed prompt among those that begin with r.
Neither takes back more than one token.

Letters: A symbols.

Source: Lundberg 2023, "The Art of Prompt Design: Prompt Boundaries and Token Healing" (guidance); as baselines:
Phan et al. 2024, "Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model Ensembles".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from components.language.token_rows import GrowingText, NothingFollows, TokenRow, TokenRows


class TokenPrompt:
    """A token model asked for the next byte of a text that is encoded anew behind every byte.

    Args:
        rows: The model's rows.
        text: The prompt.
        healed: Whether the last token is taken back.
    """

    def __init__(self, rows: TokenRows, text: str = "", *, healed: bool) -> None:
        self._rows = rows
        self._healed = healed
        self._text = GrowingText(rows.vocabulary.tokenizer, text)
        self.alphabet = rows.vocabulary.alphabet

    def log_probabilities(self) -> np.ndarray:
        """Return ln P(next symbol | prompt), (A + 1,) float64; the last is the end of the text.

        Raises:
            NothingFollows: Neither a symbol nor the end has any probability.
        """
        words = self._rows.vocabulary.words
        tokens = self._text.tokens()
        sums = self._first_symbols(self._rows.after(tokens))
        if self._healed and tokens:
            taken_back = words.vocabulary[tokens[-1]]
            row = self._rows.after(tokens[:-1])
            sums *= row.tokens[self._rows.vocabulary.rank[tokens[-1]]] / sums.sum()
            longer = words.longer(*words.below(taken_back), len(taken_back))
            sums[:-1] += words.by_symbol(row.tokens, *longer, len(taken_back))
        total = sums.sum()
        if not total > 0:
            raise NothingFollows(f"The model gives nothing behind the tokens {tokens[-8:]} any probability.")
        with np.errstate(divide="ignore"):
            return np.log(sums / total)

    def append(self, symbol: str) -> None:
        """Take one more symbol of the text."""
        self._text.append(symbol)

    def _first_symbols(self, row: TokenRow) -> np.ndarray:
        words = self._rows.vocabulary.words
        return np.append(words.by_symbol(row.tokens, 0, len(row.tokens), 0), row.end)


def greedy_tokens(rows: TokenRows, text: str, *, healed: bool, ends: bool = True) -> Iterator[str]:
    """Yield what greedy decoding adds to a prompt, token by token, until the text ends.

    Args:
        rows: The model's rows.
        text: The prompt.
        healed: Whether its last token is taken back and replaced by one that begins with it; the first string is then
            what the new one has more, possibly nothing.
        ends: Whether the end of the text is among the choices.
    """
    words = rows.vocabulary.words
    tokens = rows.vocabulary.tokenizer.encode(text)
    low, high, known = 0, len(words.vocabulary), 0
    if healed and tokens:
        taken_back = words.vocabulary[tokens.pop()]
        (low, high), known = words.below(taken_back), len(taken_back)
    while True:
        row = rows.after(tokens)
        place = low + int(row.tokens[low:high].argmax())
        # A prompt that was taken back a token has not been finished yet.
        if ends and not known and row.end > row.tokens[place]:
            return
        tokens.append(int(words.order[place]))
        yield words.vocabulary[tokens[-1]][known:]
        low, high, known = 0, len(words.vocabulary), 0
