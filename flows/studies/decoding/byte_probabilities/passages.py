"""Held-out passages of whole lines: where prompts are cut, gaps are taken out and texts are scored.

A passage begins where a training window may: at the start of a line. Texts are symbols, one per byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.data import tables
from components.errors import TesseraError
from components.tokenizers.text.byte_level import to_bytes, to_symbols

_MOST_DRAWS = 200
"""Passages looked at for each one wanted, before giving up."""


class TooFewPassages(TesseraError):
    """The held-out text has not enough places of a kind."""


@dataclass(frozen=True)
class Passage:
    """Whole lines of a held-out document.

    Attributes:
        name: Where it stands: module and byte.
        text: Symbols; ends with a line break.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Cut:
    """A passage cut into a prompt and what truly follows.

    Attributes:
        name: Where the cut is.
        prompt: Symbols before it.
        following: Symbols behind it, to the end of the passage.
    """

    name: str
    prompt: str
    following: str

    @property
    def line(self) -> str:
        """What follows up to the end of the line, the line break included."""
        return self.following[: self.following.index("\n") + 1]


@dataclass(frozen=True)
class Gap:
    """A passage with a span of one line taken out.

    Attributes:
        name: Where the span begins, and its bytes.
        prefix: Symbols before it.
        middle: The span.
        suffix: Symbols behind it.
    """

    name: str
    prefix: str
    middle: str
    suffix: str


class HeldOut:
    """The documents of a data set's test part.

    Args:
        directory: Data set with the columns `module` and `text`.
        most_bytes: Most bytes of a passage.

    Raises:
        TooFewPassages: No document has a line that fits.
    """

    def __init__(self, directory: Path, most_bytes: int) -> None:
        frame = tables.read_split(directory, "test", ["module", "text"])
        self._most = most_bytes
        self._documents: list[tuple[str, list[str], np.ndarray]] = []
        for module, text in frame.iter_rows():
            symbols = to_symbols(text)
            lines = [line + "\n" for line in symbols.split("\n")[:-1]]
            if any(len(line) <= most_bytes for line in lines):
                starts = np.cumsum([0, *map(len, lines)])
                self._documents.append((module, lines, starts))
        if not self._documents:
            raise TooFewPassages(f"{directory} has no test document with a whole line of at most {most_bytes} bytes.")
        lengths = np.array([starts[-1] for _, _, starts in self._documents], float)
        self._shares = lengths / lengths.sum()

    def draw(self, generator: np.random.Generator) -> Passage:
        """Draw a passage: a document by its length, one of its lines, and as many more as fit."""
        while True:
            module, lines, starts = self._documents[generator.choice(len(self._documents), p=self._shares)]
            first = int(generator.integers(len(lines)))
            last = int(np.searchsorted(starts, starts[first] + self._most, "right")) - 1
            if last > first:
                return Passage(f"{module}@{starts[first]}", "".join(lines[first:last]))

    def texts(self, total: int, generator: np.random.Generator) -> list[Passage]:
        """Draw passages that do not overlap until they have `total` bytes, or all there are."""
        found, length = [], 0
        every = [passage for document in self._documents for passage in self._consecutive(*document)]
        for index in generator.permutation(len(every)).tolist():
            if length >= total:
                break
            found.append(every[index])
            length += len(every[index].text)
        return found

    def _consecutive(self, module: str, lines: list[str], starts: np.ndarray) -> Iterator[Passage]:
        first = 0
        while first < len(lines):
            last = int(np.searchsorted(starts, starts[first] + self._most, "right")) - 1
            if last > first:
                yield Passage(f"{module}@{starts[first]}", "".join(lines[first:last]))
            first = max(last, first + 1)

    def wanted(self, count: int, take: Callable[[Passage], object | None], generator: np.random.Generator) -> list:
        """Draw passages until `take` has made `count` things of them; None makes nothing.

        Raises:
            TooFewPassages: It nearly always makes nothing, or things of the same name.
        """
        found: dict[str, object] = {}
        for _ in range(_MOST_DRAWS * count):
            if len(found) == count:
                return list(found.values())
            taken = take(self.draw(generator))
            if taken is not None:
                found.setdefault(taken.name, taken)
        raise TooFewPassages(
            f"{len(found)} of {count} places found in {_MOST_DRAWS * count} passages of at most {self._most} bytes; "
            "ask for fewer, or change passage_bytes."
        )


def take_cut(
    passage: Passage,
    ends: Sequence[int],
    inside: bool,
    shortest: int,
    following: int,
    generator: np.random.Generator,
) -> Cut | None:
    """Cut a passage at a place drawn uniformly among those inside a token, or among the ends of tokens.

    Args:
        passage: The passage.
        ends: Where the tokens of its encoding end, in symbols.
        inside: Whether the cut is strictly inside a token.
        shortest: Fewest symbols before the cut.
        following: Fewest symbols behind it.
        generator: Source of randomness.

    Returns:
        The cut, None where there is no such place.
    """
    places = np.arange(shortest, len(passage.text) - following + 1)
    places = places[np.isin(places, ends) != inside]
    if not len(places):
        return None
    place = int(generator.choice(places))
    return Cut(f"{passage.name}+{place}", passage.text[:place], passage.text[place:])


def take_gap(passage: Passage, shortest: int, longest: int, generator: np.random.Generator) -> Gap | None:
    """Take a span of characters out of one line: its length, then its place, drawn uniformly; not at the very start."""
    characters = to_bytes(passage.text).decode("utf-8")
    length = int(generator.integers(shortest, longest, endpoint=True))
    places = [place for place in range(1, len(characters) - length) if "\n" not in characters[place : place + length]]
    if not places:
        return None
    start = int(generator.choice(places))
    parts = characters[:start], characters[start : start + length], characters[start + length :]
    prefix, middle, suffix = map(to_symbols, parts)
    return Gap(f"{passage.name}+{len(prefix)}:{len(middle)}", prefix, middle, suffix)


def token_ends(vocabulary: Sequence[str], tokens: Sequence[int]) -> list[int]:
    """Return where each token ends, in symbols."""
    return np.cumsum([len(vocabulary[token]) for token in tokens]).tolist()
