"""A study's figures as the ledger page shows them: one data URI each, with the caption that the SVG carries.

`figure.savefig(path, metadata={"Title": caption, "Description": what a blind reader should know, "Date": None})`
writes the caption into the SVG itself, so that a figure cannot lose it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from flows.ledger.results import ResultsError


@dataclass(frozen=True)
class Figure:
    """One figure of a variant.

    Attributes:
        name: File name without its ending.
        caption: Title in the SVG's metadata, or the name in words where it has none.
        description: Description in the metadata, or the caption: the text alternative.
        source: The SVG as a data URI.
        width: Width of its view box; a page keeps the room free until the picture is there.
        height: Height of its view box.
    """

    name: str
    caption: str
    description: str
    source: str
    width: int
    height: int


def read_figures(directory: Path) -> list[Figure]:
    """Return the figures below `directory / "figures"`, by name.

    Raises:
        ResultsError: A file is no SVG.
    """
    return [_read(path) for path in sorted((directory / "figures").glob("*.svg"))]


def _read(path: Path) -> Figure:
    content = path.read_bytes()
    try:
        tree = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ResultsError(f"{path} is not readable as SVG ({error}); rerun the judge stage that draws it.") from None
    words = path.stem.replace("_", " ").replace("-", " ")
    caption = _text(tree, "title") or words[:1].upper() + words[1:]
    source = "data:image/svg+xml;base64," + base64.b64encode(content).decode("ascii")
    width, height = _size(tree)
    description = _text(tree, "description") or _text(tree, "desc") or caption
    return Figure(path.stem, caption, description, source, width, height)


def _size(tree: ElementTree.Element) -> tuple[int, int]:
    """Width and height by the view box; 4 to 3 where there is none."""
    try:
        width, height = (float(part) for part in tree.get("viewBox", "").split()[2:])
    except ValueError:
        return 400, 300
    return max(round(width), 1), max(round(height), 1)


def _text(tree: ElementTree.Element, name: str) -> str:
    """First non-empty element of a local name: SVG's own title and desc, or Dublin Core's in the metadata."""
    for element in tree.iter():
        if isinstance(element.tag, str) and element.tag.rpartition("}")[2] == name and (element.text or "").strip():
            return " ".join(element.text.split())
    return ""
