"""Windows of a text that may begin anywhere: T consecutive tokens of one stream.

For models whose texts have no beginning, such as fillers of gaps and judges of what they fill in.

Letters: B windows, T tokens of a window, N tokens of the stream.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TesseraError


class ShortStream(TesseraError):
    """A stream is shorter than one window."""


class StreamWindows:
    """Windows of one stream of tokens.

    Args:
        tokens: The stream, (N,) int64.
        length: T.

    Attributes:
        tokens: The stream.

    Raises:
        ShortStream: There is no window.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
        if len(tokens) < length:
            raise ShortStream(f"The stream has {len(tokens)} tokens; expected at least {length}, one window.")
        self.tokens = tokens
        self._places = torch.arange(length)

    @property
    def count(self) -> int:
        """Number of windows, N - T + 1."""
        return len(self.tokens) - len(self._places) + 1

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw windows with replacement, (count, T)."""
        return self.at(torch.randint(self.count, (count,), generator=generator))

    def at(self, starts: Tensor) -> Tensor:
        """Return the windows that begin at some places, (B,) to (B, T)."""
        return self.tokens[starts[:, None] + self._places]

    def disjoint(self) -> Tensor:
        """Return the windows side by side from the front, (N // T, T)."""
        length = len(self._places)
        return self.tokens[: len(self.tokens) // length * length].unflatten(0, (-1, length))
