"""The ways of asking a language model for bytes, on top of rows from one pass over all that will be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from components.language.byte_conversion import NextToken
from components.language.byte_stream import ByteModel, ByteStream
from components.language.fill_in_middle import END
from components.language.generation import PrefixSession
from components.language.pretrained import LanguageModel, load_language_model
from components.language.token_healing import TokenPrompt, greedy_tokens
from components.language.token_rows import ByteVocabulary, TokenRows, encodings
from components.language.token_tree import TokenTree
from components.tokenizers.text.continuations import Continuations, continuations_of
from flows.studies.context import StageContext


class AskedModel:
    """A language model of the arm's seed with what exact bytes need beside it.

    Args:
        language: The model; it is turned to double precision, so that rounding adds nothing to ratios of small
            probabilities.
        device: Where it computes.
    """

    def __init__(self, language: LanguageModel, device: str) -> None:
        self.network = language.model.double().eval().to(device)
        self.tokenizer: Any = language.tokenizer
        self.specials = language.specials
        self.vocabulary = ByteVocabulary(language.tokenizer)
        self._continuations: Continuations | None = None

    @property
    def continuations(self) -> Continuations:
        """Valid continuations of the tokenizer."""
        if self._continuations is None:
            self._continuations = continuations_of(self.tokenizer)
        return self._continuations

    @property
    def room(self) -> int:
        """Tokens that a text may have, so that a step to another encoding of it still fits the context."""
        return self.network.config.context - 1 - self.vocabulary.words.longest

    def tree(self, text: str, first: int, context: Sequence[int] = ()) -> TokenTree:
        """Run the model behind the encodings of the first `first`, first + 1, ..., N symbols of a text."""
        return TokenTree(
            self.network, ([*context, *tokens] for tokens in encodings(self.tokenizer, text, max(0, first)))
        )

    def session(self) -> PrefixSession:
        """Return the model step by step, with its calls counted."""
        return PrefixSession(self.network)

    def rows(self, next_token: NextToken, *, truncated: bool, context: Sequence[int] = ()) -> TokenRows:
        """Return rows for byte algorithms."""
        return TokenRows(
            next_token,
            self.vocabulary,
            continuations=self.continuations if truncated else None,
            end=self.specials[END],
            context=context,
        )


def asked_model(stage: StageContext, tokens: str) -> AskedModel:
    """Load the base with this kind of tokens that belongs to the arm's seed."""
    base = stage.inputs[f"bases/{stage.params.base_of(tokens, stage.seed)}"]
    return AskedModel(load_language_model(base), stage.device)


def byte_model(query: str, model: AskedModel, prompt: str, following: str, context: Sequence[int] = ()) -> ByteModel:
    """Return an arm's predictor behind a prompt, ready for the true bytes that follow."""
    if query in ("byte_exact", "byte_fast"):
        # The first cover asks behind every beginning that a token can reach over the end from.
        tree = model.tree(prompt + following, len(prompt) - model.vocabulary.words.longest, context)
        return ByteStream(model.rows(tree.next, truncated=query == "byte_exact", context=context), prompt)
    tree = model.tree(prompt + following, len(prompt), context)
    rows = model.rows(tree.next, truncated=False, context=context)
    return TokenPrompt(rows, prompt, healed=query == "token_healing")


def following_bits(predictor: ByteModel, following: str) -> list[float]:
    """Return -log2 P of each symbol given all before it."""
    bits = []
    for symbol in following:
        place = predictor.alphabet.index(symbol)
        bits.append(-float(predictor.log_probabilities()[place]) / np.log(2))
        predictor.append(symbol)
    return bits


def writes_line(predictor: ByteModel, line: str) -> bool:
    """Tell whether greedy decoding writes a line and then breaks or ends it; it is followed while it does."""
    for symbol in line:
        chosen = int(predictor.log_probabilities().argmax())
        if symbol == "\n" and chosen == len(predictor.alphabet):
            return True
        if chosen != predictor.alphabet.index(symbol):
            return False
        predictor.append(symbol)
    return True


def writes_span(predictor: ByteModel, span: str) -> bool:
    """Tell whether greedy decoding writes a span of given length, so the end of the text is no choice."""
    for symbol in span:
        if int(predictor.log_probabilities()[:-1].argmax()) != predictor.alphabet.index(symbol):
            return False
        predictor.append(symbol)
    return True


def strings_write_line(strings: Iterator[str], line: str) -> bool:
    """Tell whether strings of greedy tokens spell a line up to its break, or to the end of the text."""
    written = ""
    for string in strings:
        written += string
        if "\n" in written:
            return written[: written.index("\n") + 1] == line
        if not line.startswith(written):
            return False
    return written + "\n" == line


def strings_write_span(strings: Iterator[str], span: str) -> bool:
    """Tell whether the first symbols of strings of greedy tokens are a span."""
    written = ""
    for string in strings:
        written += string
        if len(written) >= len(span) or not span.startswith(written):
            break
    return written.startswith(span)


def greedy_strings(
    query: str, model: AskedModel, prompt: str, context: Sequence[int] = (), *, ends: bool
) -> Iterator[str]:
    """Return the strings that an arm of tokens writes behind a prompt."""
    rows = model.rows(model.session().next, truncated=False, context=context)
    return greedy_tokens(rows, prompt, healed=query == "token_healing", ends=ends)
