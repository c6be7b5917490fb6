"""Training windows of a causal language model: whole lines of documents, encoded chunk by chunk, in one stream.

    documents -- chunks of whole lines -- encode (or arrange to fill in the middle) -- stream ... chunk <eos> chunk ...
                                                                                              ^ windows start here

A chunk is as many lines as about fill the context, so a window begins where a chunk begins, which is at the start of a
line, and the model's start token means just that. <eos> ends a document; where chunks are arranged to fill in the
middle, each is a document of its own.

Letters: B windows, T tokens of a window, N tokens of the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.errors import TesseraError
from components.language.fill_in_middle import END, arrange, draw_order, draw_span

_ROOM = 8  # tokens left free in a chunk: special tokens, and parts that encode longer than the whole


class TooLittleText(TesseraError):
    """A corpus is shorter than one training window."""


def chunks(text: str, tokenizer: Any, context: int) -> Iterator[str]:
    """Cut a text into runs of whole lines of at most about `context` tokens; joined they are the text.

    A line that is longer alone is cut where a piece of the pre-tokenizer begins.

    Args:
        text: Symbols.
        tokenizer: Has `encode_with_pieces` and `vocabulary`.
        context: Tokens of a training window.
    """
    limit = max(1, context - _ROOM)
    held, count = [], 0
    for line in _lines(text):
        for part, tokens in _parts(line, tokenizer, limit):
            if held and count + tokens > limit:
                yield "".join(held)
                held, count = [], 0
            held.append(part)
            count += tokens
    if held:
        yield "".join(held)


def _lines(text: str) -> list[str]:
    # Not splitlines: it also cuts at form feeds and, among byte symbols, inside characters of UTF-8 (0x85).
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _parts(line: str, tokenizer: Any, limit: int) -> Iterator[tuple[str, int]]:
    tokens, pieces = tokenizer.encode_with_pieces(line)
    if len(tokens) <= limit:
        yield line, len(tokens)
        return
    begins = np.flatnonzero(np.diff(pieces, prepend=-1))
    start = 0
    while start < len(tokens):
        reachable = begins[(begins > start) & (begins <= start + limit)]
        end = len(tokens) if start + limit >= len(tokens) else int(reachable[-1]) if len(reachable) else start + limit
        yield tokenizer.decode(tokens[start:end]), end - start
        start = end


def encode_documents(documents: Iterable[str], tokenizer: Any, specials: Mapping[str, int]) -> Tensor:
    """Encode whole documents one after the other, <eos> behind each, (N,) int64: what counts are taken of.

    Args:
        documents: Texts as symbols.
        tokenizer: Tokenizer of symbols.
        specials: Ids of the special tokens, <eos> at least.
    """
    tokens: list[int] = []
    for document in documents:
        tokens += [*tokenizer.encode(document), specials[END]]
    return torch.tensor(tokens, dtype=torch.int64)


@dataclass(frozen=True)
class Arrangement:
    """How chunks become documents.

    Attributes:
        psm: Share arranged as prefix, suffix, middle.
        spm: Share arranged as suffix, prefix with middle.
        joint: Prefix and middle of SPM are encoded as the one text they are; otherwise each on its own.
    """

    psm: float = 0.0
    spm: float = 0.0
    joint: bool = True

    @property
    def plain(self) -> bool:
        """Whether every chunk stays as it is."""
        return self.psm + self.spm == 0


class CorpusWindows:
    """Windows of T tokens of a stream, each from the beginning of a chunk.

    Args:
        documents: Texts as symbols.
        tokenizer: Tokenizer of symbols.
        specials: Ids of the special tokens, <eos> at least.
        context: T.
        arrangement: How chunks become documents.
        generator: Draws forms and spans.

    Attributes:
        tokens: The stream, (N,) int64.
        starts: Where its windows begin, ascending.

    Raises:
        TooLittleText: The stream has no window.
    """

    def __init__(
        self,
        documents: Iterable[str],
        tokenizer: Any,
        specials: Mapping[str, int],
        context: int,
        arrangement: Arrangement | None = None,
        generator: np.random.Generator | None = None,
    ) -> None:
        arrangement = arrangement or Arrangement()
        parts: list[list[int]] = []
        begins, length = [], 0
        for document in documents:
            for chunk in chunks(document, tokenizer, context):
                tokens = _encode(chunk, tokenizer, specials, arrangement, generator)
                begins.append(length)
                parts.append(tokens)
                length += len(tokens)
            if arrangement.plain:
                parts.append([specials[END]])
                length += 1
        self.tokens = torch.tensor([token for part in parts for token in part], dtype=torch.int64)
        starts = np.asarray(begins, np.int64)
        self.starts = torch.from_numpy(starts[starts <= length - context])
        if not len(self.starts):
            raise TooLittleText(f"The corpus has {length} tokens; expected at least {context}, one window.")
        self._places = torch.arange(context)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw windows with replacement, (count, T)."""
        return self.windows(torch.randint(len(self.starts), (count,), generator=generator))

    def windows(self, which: Tensor | Sequence[int]) -> Tensor:
        """Return the windows of some starts by index, (B, T)."""
        starts = self.starts[torch.as_tensor(which)]
        return self.tokens[starts[:, None] + self._places]

    def disjoint(self) -> Tensor:
        """Return indices of starts whose windows do not overlap, from the front, (B,)."""
        chosen, free = [], 0
        for index, start in enumerate(self.starts.tolist()):
            if start >= free:
                chosen.append(index)
                free = start + len(self._places)
        return torch.tensor(chosen)


def _encode(chunk: str, tokenizer, specials, arrangement: Arrangement, generator) -> list[int]:
    if arrangement.plain:
        return tokenizer.encode(chunk)
    order = draw_order(arrangement.psm, arrangement.spm, generator)
    span = draw_span(len(chunk), generator)
    return [*arrange(chunk, span, order, tokenizer.encode, specials, joint=arrangement.joint), specials[END]]
