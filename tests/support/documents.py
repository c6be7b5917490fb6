"""Markdown documents taken apart: their fenced blocks, and which files they tell a reader to write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tracked import files, text

GUIDE = "Reproduce your own paper"
PATHS = [path for path in files() if path.suffix == ".md" and path.parts[0] not in ("bases", "results")]


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        document: The document.
        line: Line of its first fence.
        section: Heading above it.
        language: What stands behind the fence.
        body: Its content.
        file: File that the sentence above tells the reader to write it to; "" where it names none.
    """

    document: Path
    line: int
    section: str
    language: str
    body: str
    file: str

    @property
    def name(self) -> str:
        """Where it stands, for the name of a test."""
        return f"{self.document}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    found: list[Block] = []
    section, above, body, opened = "", "", [], None
    for number, line in enumerate(text(path).splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened, body = (number, line[3:].strip()), []
            else:
                written = re.search(r"`([\w./-]+)`:$", above.strip())
                file = written[1] if written and opened[1] in ("python", "yaml") else ""
                found.append(Block(path, opened[0], section, opened[1], "\n".join(body) + "\n", file))
                opened, above = None, ""
        elif opened is not None:
            body.append(line)
        elif heading := re.match(r"#+ (.*)", line):
            section, above = heading[1], ""
        elif line.strip():
            above = f"{above} {line.strip()}"
        elif not above.endswith(":"):
            above = ""
    assert opened is None, f"{path}: a fence is not closed"
    return found


ALL_BLOCKS = [block for path in PATHS for block in blocks(path)]
