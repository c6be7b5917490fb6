"""The real text of a stage, and the module of its tokenizer."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from components.data import tables
from flows.studies.context import StageContext

TEXT_FILE = "text.parquet"


def tokenizer_module(name: str) -> ModuleType:
    """Import the module of components.tokenizers.text that an arm names."""
    return importlib.import_module(f"components.tokenizers.text.{name}")


def tokenizer_file(size: int) -> str:
    """Return the name under which a training keeps its dictionary of one size."""
    return f"tokenizer-{size}.json"


def text_directory(stage: StageContext) -> Path:
    """Return the directory of the one data set that the stage is given."""
    (directory,) = (path for name, path in stage.inputs.items() if name.startswith("data/"))
    return directory


def split_text(directory: Path, split: str) -> str:
    """Read one split of a real text."""
    return "".join(tables.read_split(directory, split, ["text"])["text"])


def symbols(directory: Path) -> str:
    """Return every character of the text, held-out parts included, so that nothing is unknown in any of them."""
    return "".join(sorted(set("".join(tables.read(directory, TEXT_FILE)["text"]))))
