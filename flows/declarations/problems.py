"""Problems of declarations: each names file, line and key, what was expected and the nearest right spelling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from components.errors import TesseraError


@dataclass(frozen=True)
class Problem:
    """One thing to correct in a declaration.

    Attributes:
        path: File, relative to the workspace.
        line: 1-based line, or None where the file as a whole is meant.
        where: Dotted key, such as "arms.tail_drop.steps"; "" for the whole file.
        message: What is wrong, what was expected, how to put it right.
        warning: Whether the declaration can be used all the same.
    """

    path: str
    line: int | None
    where: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        kind = "warning: " if self.warning else ""
        return f"{place}: {kind}{self.where}: {self.message}" if self.where else f"{place}: {kind}{self.message}"


class DeclarationError(TesseraError):
    """Declarations cannot be used; `problems` lists everything wrong with them, not just the first fault."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = sort_problems(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Order problems by file and line, each once."""
    return sorted(set(problems), key=lambda problem: (problem.path, problem.line or 0, problem.where, problem.message))
